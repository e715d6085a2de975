"""What the shipping service tells others. Read by `__main__.py`."""

from shop.shipping.events.v1.shipping_pb2 import ParcelBooked, ParcelCancelled, ParcelHandedOver, ParcelRefused

PUBLISHES = (ParcelBooked, ParcelRefused, ParcelCancelled, ParcelHandedOver)
