"""What the service and its commands have in common: the parts that a projection is built with."""

from functools import partial

from amends_chassis.service import Runtime

from shop_reporting.exports import ExportClient
from shop_reporting.projection import BATCH, CountGaps, Projection
from shop_reporting.rebuild import Rebuild
from shop_reporting.settings import Settings


def rebuild(settings: Settings, runtime: Runtime, count_gaps: CountGaps) -> Rebuild:
    """Return what builds a projection, with the channels and the broker of a process."""
    targets = {
        "orders": settings.orders_target,
        "inventory": settings.inventory_target,
        "payments": settings.payments_target,
        "shipping": settings.shipping_target,
    }
    exports = ExportClient({source: runtime.channel(target) for source, target in targets.items()})
    return Rebuild(runtime.database, runtime.events.broker, exports, partial(_consume, runtime), count_gaps)


async def _consume(runtime: Runtime, projection: Projection) -> None:
    await runtime.events.consume(projection.consumer, projection.batches, BATCH)
