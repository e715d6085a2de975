"""Puts the monitor together: definitions, reading, judging, API. Called by `__main__` and by tests."""

from functools import partial

from amends_chassis.service import Runtime

from amends.monitor.v1.monitor_service_pb2_grpc import add_MonitorServiceServicer_to_server
from amends_monitor.api import SERVICE, MonitorApi
from amends_monitor.definitions import Definitions
from amends_monitor.judging import Judging
from amends_monitor.metrics import FlowMetrics, report
from amends_monitor.reading import FlowReading
from amends_monitor.retention import expire
from amends_monitor.settings import Settings


async def assemble(settings: Settings, runtime: Runtime) -> None:
    """Assemble a monitor. Raises LookupError without a database."""
    database = runtime.database
    definitions = Definitions(database)
    judging = Judging(database, definitions)
    reading = FlowReading(runtime.events, definitions, judging.changed)
    api = MonitorApi(database, definitions, reading, settings.grace)
    runtime.add(add_MonitorServiceServicer_to_server, api, SERVICE)
    runtime.background("definitions", definitions.follow)
    runtime.background("flows.read", reading.run)
    runtime.background("flows.judge", judging.run)
    metrics = FlowMetrics(runtime.registry)
    runtime.background("flows.count", partial(report, database, definitions, reading, metrics, settings.grace))
    runtime.background("flows.expire", partial(expire, database, settings.retention))
