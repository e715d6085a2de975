"""Client channels: every call has a deadline, carries the trace on and is counted.

A thin channel around grpc.aio's own, because its interceptors cost a task per call. Made by `Runtime.channel`, or by
`Channels` in a process that is no service. Retries are not made here: use `amends_resilience` for that.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self, cast

import grpc
from amends_resilience import deadline

from amends_chassis.context import current_trace
from amends_chassis.dial import dial

if TYPE_CHECKING:
    from amends_chassis.certificates import Certificates
    from amends_chassis.metrics import ClientMetrics
    from amends_chassis.policies import PolicySource
    from amends_chassis.tracing import Tracing

MARGIN = timedelta(milliseconds=20)
"""Kept back from the caller's deadline for the way back."""

_Option = tuple[str, str | int]
_Arguments = dict[str, Any]


def channel_options(target: str, max_message_bytes: int) -> list[_Option]:
    """Return the options of a channel to `target`. There is no `timeout` in the service config: it fires too early."""
    options: list[_Option] = [
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        # A peer that died without a word is noticed while calls wait for it. Healthy peers answer sooner than the first
        # ping, so also a server that allows a ping each five minutes only has nothing to say against it.
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # Pods come and go with every deployment: a name is asked for again when its last pod leaves, not after 30 s.
        ("grpc.dns_min_time_between_resolutions_ms", 500),
    ]
    if target.startswith("dns:"):  # several replicas behind one name
        options.append(("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})))
    return options


class Channel(grpc.aio.Channel):
    """A channel whose calls get min(their timeout or the default, what is left of the caller's deadline)."""

    def __init__(
        self,
        target: str,
        *,
        call_timeout: timedelta = timedelta(seconds=10),
        max_message_bytes: int = 4 * 1024 * 1024,
        metrics: "ClientMetrics | None" = None,
        tracing: "Tracing | None" = None,
        closed: Callable[[], None] | None = None,
        policies: "PolicySource | None" = None,
        certificates: "Certificates | None" = None,
    ) -> None:
        """Connect lazily to `target`; `closed` is called when the channel is closed.

        With `certificates` the connection is mutual TLS.
        `policies` give unary methods their timeouts, and those that may be repeated their retries.
        """
        options = channel_options(target, max_message_bytes)
        self._plain = dial(target, options, certificates=certificates)
        # The same options: gRPC then shares one connection between both.
        self._traced: grpc.aio.Channel | None = None
        if tracing is not None:
            self._traced = dial(target, options, interceptors=tracing.client_interceptors(), certificates=certificates)
        self._call_timeout = call_timeout
        self._metrics = metrics
        self._closed = closed
        self._policies = policies

    async def __aenter__(self) -> Self:
        """Return the channel itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the channel at the end of the block."""
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Cancel what is under way after `grace` seconds, and close."""
        if self._closed is not None:
            self._closed()
        for channel in (self._plain, self._traced):
            if channel is not None:
                await channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return the state of the connection."""
        return self._plain.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the state is another."""
        await self._plain.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until the channel is connected."""
        await self._plain.channel_ready()

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Make a callable of a unary method; generated stubs call this."""
        made = self._callable("unary_unary", method, args, kwargs, self._call_timeout)
        return made if self._policies is None else _Ruled(made, method, self._policies)

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Make a callable of a client-streaming method."""
        return self._callable("stream_unary", method, args, kwargs, self._call_timeout)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Make a callable of a server-streaming method; without a default timeout, since a watch has no end."""
        return self._callable("unary_stream", method, args, kwargs, None)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Make a callable of a bidirectional method; without a default timeout."""
        return self._callable("stream_stream", method, args, kwargs, None)

    def _callable(
        self, kind: str, method: str, args: Sequence[Any], kwargs: _Arguments, default: timedelta | None
    ) -> "_Callable":
        plain = getattr(self._plain, kind)(method, *args, **kwargs)
        traced = None if self._traced is None else getattr(self._traced, kind)(method, *args, **kwargs)
        return _Callable(method, plain, traced, default, self._metrics)


class _Callable:
    """One method of a channel. Stands in for the four MultiCallable classes of grpc.aio, which differ in types only."""

    __slots__ = ("_default", "_method", "_metrics", "_plain", "_traced")

    def __init__(
        self, method: str, plain: Any, traced: Any, default: timedelta | None, metrics: "ClientMetrics | None"
    ) -> None:
        self._method = method
        self._plain = plain
        self._traced = traced
        self._default = default
        self._metrics = metrics

    def __call__(
        self,
        request: Any = None,
        *,
        timeout: float | None = None,
        metadata: Iterable[tuple[str, str | bytes]] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Send `request` (a message, or an iterator of them). Raises DeadlinePassedError when no time is left."""
        arguments = () if request is None else (request,)
        seconds = self._seconds(timeout)
        trace = current_trace()
        if trace is not None and trace.sampled and self._traced is not None:
            from amends_chassis.tracing import below_current_trace

            sent = tuple(metadata or ())
            with below_current_trace():
                made = self._traced(*arguments, timeout=seconds, metadata=sent or None, **kwargs)
        else:
            sent = (*(metadata or ()), *(() if trace is None else trace.metadata()))
            made = self._plain(*arguments, timeout=seconds, metadata=sent or None, **kwargs)
        if self._metrics is not None:
            made.add_done_callback(self._count)
        return made

    def _seconds(self, given: float | None) -> float | None:
        wanted = self._default if given is None else timedelta(seconds=given)
        if wanted is not None:
            return deadline.timeout(wanted, MARGIN).total_seconds()
        left = deadline.remaining(MARGIN)
        if left is None:
            return None
        return deadline.timeout(left, MARGIN).total_seconds()

    def _count(self, call: Any) -> None:
        assert self._metrics is not None
        self._metrics.finished(self._method, _code(call))


class _Ruled:
    """A unary method under the policy that is in force when it is called."""

    __slots__ = ("_made", "_method", "_policies")

    def __init__(self, made: _Callable, method: str, policies: "PolicySource") -> None:
        self._made = made
        self._method = method
        self._policies = policies

    def __call__(self, request: Any = None, *, timeout: float | None = None, **kwargs: Any) -> Any:
        """Send `request`: as often, and each time for as long, as the policy says. A given timeout stands."""
        from amends_chassis.policies import RetriedCall, repeatable

        policy = self._policies.find(self._method)
        if policy is None:
            return self._made(request, timeout=timeout, **kwargs)
        seconds = policy.timeout.total_seconds() if timeout is None else timeout
        if policy.attempts == 1 or self._method not in repeatable():
            return self._made(request, timeout=seconds, **kwargs)
        budget = self._policies.budget(self._method, policy)
        return RetriedCall(lambda: self._made(request, timeout=seconds, **kwargs), policy, budget)


def _code(call: Any) -> grpc.StatusCode:
    """Read the status of a finished call: `code()` is a coroutine that has nothing to wait for any more."""
    asking = call.code()
    try:
        asking.send(None)
    except StopIteration as answer:
        return cast("grpc.StatusCode", answer.value)
    except (grpc.aio.AioRpcError, grpc.aio.UsageError) as error:
        return error.code() if isinstance(error, grpc.aio.AioRpcError) else grpc.StatusCode.UNKNOWN
    finally:
        asking.close()
    return grpc.StatusCode.UNKNOWN
