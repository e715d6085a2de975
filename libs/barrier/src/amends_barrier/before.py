"""The part of a guarded handler that runs outside of its database, before the barrier opens the transaction.

A call to the outside cannot be rolled back, and while it lasts it would hold a connection of the pool and the locks of
the transaction. For authors of handlers; the interceptor runs what is marked here.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

PrepareFunction = Callable[[Any, Any], Awaitable[None]]
"""Takes the servicer (None for a handler that is no method) and the request. What it raises is the call's answer, and
the handler does not run."""

HandlerT = TypeVar("HandlerT", bound=Callable[..., Awaitable[Any]])

_MARK = "__amends_before__"


def before(prepare: PrepareFunction) -> Callable[[HandlerT], HandlerT]:
    """Mark a guarded handler: `prepare(servicer, request)` is awaited first, with no connection held.

    It runs at each attempt of an action, also at one that is answered from memory or fenced afterwards. So it must be
    idempotent for the request, and harmless when nothing follows: an authorisation that lapses, never a capture. It
    does not run for a void.
    """

    def mark(handler: HandlerT) -> HandlerT:
        setattr(handler, _MARK, prepare)
        return handler

    return mark


def prepare_of(handler: Any) -> Callable[[Any], Awaitable[None]] | None:
    """Return what is to be awaited with the request before the handler; None for a handler that is not marked."""
    prepare: PrepareFunction | None = getattr(handler, _MARK, None)
    if prepare is None:
        return None
    servicer = getattr(handler, "__self__", None)
    return lambda request: prepare(servicer, request)
