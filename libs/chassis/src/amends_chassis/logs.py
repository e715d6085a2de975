"""Sets structured logging up, once per process: one JSON object a line, with the run, step and trace in hand.

Called by `service.run`. Lines of libraries that use the standard `logging` go the same way. Code writes
`structlog.get_logger().info("event.constant", key=value)`.
"""

import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from amends_chassis.context import current_call, current_trace
from amends_chassis.settings import LogFormat, LogLevel

_FROM_METADATA = (
    ("amends-run-id", "run_id"),
    ("amends-step", "step"),
    ("amends-operation", "operation"),
)


def add_call(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """Put the method, run, step, operation and trace id of the call in hand on a log event."""
    call = current_call()
    if call is not None:
        event.setdefault("method", call.method)
        for key, field in _FROM_METADATA:
            if field not in event and (value := call.value(key)) is not None:
                event[field] = value
    trace = current_trace()
    if trace is not None:
        event.setdefault("trace_id", trace.trace_id)
    return event


def configure(
    service: str,
    level: LogLevel = LogLevel.INFO,
    form: LogFormat = LogFormat.JSON,
    stream: TextIO | None = None,
) -> None:
    """Send everything to `stream` (default standard output) as one line an event, tagged with the service."""

    def add_service(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
        event.setdefault("service", service)
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        add_call,
        add_service,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(form, handler.stream)],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.value.upper())
    logging.captureWarnings(True)


def _renderers(form: LogFormat, stream: TextIO) -> list[Processor]:
    if form is LogFormat.CONSOLE:
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain)]
    return [structlog.processors.format_exc_info, _what_first, structlog.processors.JSONRenderer(default=str)]


def _what_first(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """Begin a line with when, how bad and what, for those who read it as it is."""
    return {**{key: event[key] for key in ("timestamp", "level", "event") if key in event}, **event}
