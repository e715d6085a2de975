"""What the identity service tells others. Read by `assemble.py`."""

from shop.identity.events.v1.identity_pb2 import AccountClosed, AccountOpened

PUBLISHES = (AccountOpened, AccountClosed)
