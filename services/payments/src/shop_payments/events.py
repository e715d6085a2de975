"""What the payments service tells others. Read by `__main__.py`."""

from shop.payments.events.v1.payments_pb2 import PaymentRefunded, PaymentTaken

PUBLISHES = (PaymentTaken, PaymentRefunded)
