"""Puts the reporting service together, for its process and for tests."""

from functools import partial

from amends_chassis.projections.projection import Projection
from amends_chassis.projections.serving import ProjectionMetrics, Serving
from amends_chassis.service import Runtime
from prometheus_client import Counter

from shop.reporting.v1.reporting_pb2_grpc import add_ReportingServiceServicer_to_server
from shop_reporting import parts
from shop_reporting.api import ReportingService
from shop_reporting.facts import Fact
from shop_reporting.projection import OrderProjection
from shop_reporting.repair import Repair
from shop_reporting.settings import Settings

READY = "projection"


async def assemble(settings: Settings, runtime: Runtime) -> None:
    """Put the service's parts together."""
    gaps = Counter("projection_version_gaps", "Versions that were jumped over.", registry=runtime.registry)
    rebuild = parts.rebuild(settings, runtime, gaps.inc)
    fresh = rebuild.look_at_ends()

    async def repair(projection: Projection[Fact]) -> None:
        await Repair(runtime.database, rebuild.exports, OrderProjection(projection.version, gaps.inc)).run()

    serving = Serving(
        runtime.database,
        rebuild,
        fresh,
        ProjectionMetrics(runtime.registry),
        partial(runtime.health.report, READY),
        settings.keep_retired,
        repair,
    )
    await runtime.health.report(READY, False)
    servicer = ReportingService(runtime.database, fresh, settings.stuck_after)
    runtime.add(add_ReportingServiceServicer_to_server, servicer, "shop.reporting.v1.ReportingService")
    runtime.background("projections", serving.run)
