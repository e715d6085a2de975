"""What the orders service tells others. Read by `assemble.py`."""

from shop.orders.events.v1.orders_pb2 import (
    OrderConfirmed,
    OrderDispatched,
    OrderPlaced,
    OrderRefunded,
    OrderRejected,
)

PUBLISHES = (OrderPlaced, OrderConfirmed, OrderRejected, OrderRefunded, OrderDispatched)
