"""Opens gRPC channels: the only place that does, so that what holds for all of them is written once.

With `Certificates` a channel is mutual TLS: the peer is known by the DNS name of its certificate, we by ours. gRPC
never looks at a channel's certificate again, so the channel is replaced when the certificate's files have changed, and
calls under way end on the one that they began on.

gRPC takes a proxy from `http_proxy` and sends even loopback through it. Requests hold orders and cards, and a proxy
would see them; no channel that is opened here uses one. gRPC also drops an answer whose metadata are over its limit, by
chance between its two limits, and reports that it knows nothing: a rejection with a long reason would become doubt. The
limit here is one, far above what servers send. Called by clients, the command line, the demo and benchmarks.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio

if TYPE_CHECKING:
    from amends_chassis.certificates import Certificates, Material

ChannelOptions = Sequence[tuple[str, str | int]]
NO_PROXY = ("grpc.enable_http_proxy", 0)
CAUSES = (
    ("connection refused", "nothing listens there (connection refused)"),
    ("dns resolution failed", "its name is not known"),
    ("name or service not known", "its name is not known"),
    ("network is unreachable", "there is no way to it (network is unreachable)"),
    ("no route to host", "there is no way to it (no route to host)"),
    ("timed out", "the connection timed out"),
    ("timeout", "the connection timed out"),
)
"""What gRPC's core writes into the details of UNAVAILABLE, and what people read instead."""
MAX_METADATA_BYTES = 1024 * 1024
_LAST_CALLS = timedelta(seconds=30)
"""So long calls that began on a replaced channel may take to end."""
_METADATA = (("grpc.max_metadata_size", MAX_METADATA_BYTES), ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES))


def dial(
    target: str,
    options: ChannelOptions = (),
    *,
    interceptors: Sequence[grpc.aio.ClientInterceptor] | None = None,
    certificates: "Certificates | None" = None,
) -> grpc.aio.Channel:
    """Return a channel to `target`, which connects when it is first used: plain text without `certificates`."""
    all_options = [*_METADATA, *options, NO_PROXY]
    if certificates is None:
        return grpc.aio.insecure_channel(target, all_options, interceptors=interceptors)

    all_options += _known_as(target)

    def made(material: "Material") -> grpc.aio.Channel:
        return grpc.aio.secure_channel(target, material.for_client(), all_options, interceptors=interceptors)

    return _Renewed(certificates, made)


def cause(details: str) -> str:
    """Return in words why a connection failed, of what gRPC says about it; empty when it says nothing that is known."""
    return next((words for sign, words in CAUSES if sign in details.lower()), "")


def dial_blocking(
    target: str, options: ChannelOptions = (), *, certificates: "Certificates | None" = None
) -> grpc.Channel:
    """Return a channel to `target` for callers without an event loop; it connects when it is first used."""
    all_options = [*_METADATA, *options, NO_PROXY]
    if certificates is None:
        return grpc.insecure_channel(target, all_options)
    return grpc.secure_channel(target, certificates.current.for_client(), [*all_options, *_known_as(target)])


def _known_as(target: str) -> list[tuple[str, str | int]]:
    """Return by which name the peer's certificate must know it, where gRPC would not find it: a list of addresses."""
    scheme, _, addresses = target.partition(":")
    if scheme not in ("ipv4", "ipv6") or "," not in addresses:
        return []
    return [("grpc.default_authority", addresses.partition(",")[0].rpartition(":")[0])]


class _Renewed(grpc.aio.Channel):
    """A channel that is made anew when the certificate has changed."""

    def __init__(self, certificates: "Certificates", made: "Callable[[Material], grpc.aio.Channel]") -> None:
        self._certificates = certificates
        self._made = made
        self._material = certificates.current
        self._channel = made(self._material)
        self._leaving: set[asyncio.Task[None]] = set()

    def channel(self) -> grpc.aio.Channel:
        """Return the channel with the certificate that is in force; let an older one end what it began."""
        if self._certificates.current is not self._material:
            self._material = self._certificates.current
            task = asyncio.get_running_loop().create_task(self._channel.close(_LAST_CALLS.total_seconds()))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
            self._channel = self._made(self._material)
        return self._channel

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        await asyncio.gather(self._channel.close(grace), *self._leaving)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self.channel().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self.channel().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self.channel().channel_ready()

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        return _RenewedCallable(self, "unary_unary", args, kwargs)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        return _RenewedCallable(self, "unary_stream", args, kwargs)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        return _RenewedCallable(self, "stream_unary", args, kwargs)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        return _RenewedCallable(self, "stream_stream", args, kwargs)


class _RenewedCallable:
    """One method, called on the channel that is current."""

    __slots__ = ("_args", "_callable", "_channel", "_kind", "_kwargs", "_of")

    def __init__(self, of: _Renewed, kind: str, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        self._of = of
        self._kind = kind
        self._args = args
        self._kwargs = kwargs
        self._channel: grpc.aio.Channel | None = None
        self._callable: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        channel = self._of.channel()
        if channel is not self._channel:
            self._channel = channel
            self._callable = getattr(channel, self._kind)(*self._args, **self._kwargs)
        return self._callable(*args, **kwargs)
