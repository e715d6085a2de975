"""What the payments service tells others. Read by `__main__.py`."""

from shop.payments.events.v1.payments_pb2 import PaymentFailed, PaymentRefunded, PaymentTaken

PUBLISHES = (PaymentTaken, PaymentFailed, PaymentRefunded)
