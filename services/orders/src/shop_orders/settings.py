"""The settings of the orders service beside those of every service; read once, by `__main__.py`."""

from datetime import timedelta

from amends_chassis.settings import PositiveDuration, ServiceSettings
from pydantic import Field

from shop_orders.domain import Fulfilment


class Settings(ServiceSettings):
    """The settings of the orders service."""

    name: str = "orders"
    max_request_bytes: int | None = Field(default=64 * 1024, ge=1024)
    orchestrator_target: str
    """Where sagas are started, e.g. 127.0.0.1:50050."""
    inventory_target: str
    """Where stock of confirmed orders is dispatched."""
    payments_target: str | None = None
    """Where the cards of choreographed orders are kept. Without it and the next, orders are orchestrated only."""
    shipping_target: str | None = None
    """Where the parcels of choreographed orders are announced."""
    catalog_target: str | None = None
    """Where prices are set since catalog owns them. Without it SetPrice writes them here, as before."""
    serves_set_price: bool = True
    """Whether SetPrice is still served here: the last step of prices' move is to say no."""
    fulfilment: Fulfilment = Fulfilment.ORCHESTRATED
    """How orders are fulfilled that do not say it: orchestrated, or choreographed."""
    choreography_deadline: PositiveDuration = Field(default=timedelta(seconds=60), le=timedelta(hours=1))
    """How long a choreographed order may be pending: it is rejected then. At most an hour."""
    saga_namespace: str = "shop"
    """The namespace of the saga place-order."""
    follow_up_every: PositiveDuration = timedelta(milliseconds=500)
    """How often the list of unfinished orders is looked at."""
    follow_up_at_most: PositiveDuration = timedelta(seconds=5)
    """How long one order that waits for a neighbour which is away is left alone at most."""
    follow_up_waiting_at_most: PositiveDuration = timedelta(minutes=5)
    """How long one order that waits for the end of its saga, such as for a person's decision, is left alone at most."""
