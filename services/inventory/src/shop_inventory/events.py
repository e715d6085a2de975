"""What the inventory service tells others. Read by `__main__.py`."""

from shop.inventory.events.v1.inventory_pb2 import StockChanged, StockReleased, StockReserved, StockShort

PUBLISHES = (StockReserved, StockShort, StockReleased, StockChanged)
