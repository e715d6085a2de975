"""The context that a guarded handler sees: gRPC's own, but nothing is told to the caller before the rollback.

Made by the interceptor for every call of a guarded method.
"""

from typing import Any, NoReturn

import grpc

Metadata = tuple[tuple[str, str | bytes], ...]


class HandlerAbortedError(grpc.aio.AbortError):
    """The handler has aborted the call; the interceptor does it once the transaction is rolled back."""


class GuardedContext:
    """Everything of the real context, with the barrier's trailers kept and aborting put off."""

    def __init__(self, real: Any, trailers: Metadata) -> None:
        self._real = real
        self._trailers = trailers
        self.aborted: tuple[grpc.StatusCode, str, Metadata] | None = None
        """Code, details and all trailers of the abort that the handler asked for."""
        if trailers:
            real.set_trailing_metadata(trailers)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Set the trailers beside the barrier's own."""
        self._real.set_trailing_metadata((*self._trailers, *trailing_metadata))

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """Have the transaction rolled back and the call ended with this status. Always raises."""
        trailers = (*self._trailers, *trailing_metadata) if trailing_metadata else self._real.trailing_metadata()
        self.aborted = (code, details, tuple(trailers or ()))
        raise HandlerAbortedError

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """Like `abort`, with code, details and trailers of a status."""
        await self.abort(status.code, status.details, status.trailing_metadata)

    @property
    def failed(self) -> bool:
        """Return whether the handler asked for an error without raising one, or swallowed the one that abort raises."""
        return self.aborted is not None or self._real.code() not in (None, 0, grpc.StatusCode.OK)
