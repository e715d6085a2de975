"""Puts the reporting service together, for its process and for tests."""

from functools import partial

from amends_chassis.service import Runtime

from shop.reporting.v1.reporting_pb2_grpc import add_ReportingServiceServicer_to_server
from shop_reporting import parts
from shop_reporting.api import ReportingService
from shop_reporting.freshness import Freshness
from shop_reporting.serving import ProjectionMetrics, Serving
from shop_reporting.settings import Settings

READY = "projection"


async def assemble(settings: Settings, runtime: Runtime) -> None:
    """Put the service's parts together."""
    metrics, fresh = ProjectionMetrics(runtime.registry), Freshness(runtime.events.broker)
    serving = Serving(
        runtime.database,
        parts.rebuild(settings, runtime, metrics.gaps),
        fresh,
        metrics,
        partial(runtime.health.report, READY),
        settings.keep_retired,
    )
    await runtime.health.report(READY, False)
    servicer = ReportingService(runtime.database, fresh, settings.stuck_after)
    runtime.add(add_ReportingServiceServicer_to_server, servicer, "shop.reporting.v1.ReportingService")
    runtime.background("projections", serving.run)
