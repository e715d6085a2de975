"""Opens gRPC channels: the only place that does, so that what holds for all of them is written once.

gRPC takes a proxy from `http_proxy` and sends even loopback through it. Requests hold orders and cards, and a proxy
would see them; no channel that is opened here uses one. gRPC also drops an answer whose metadata are over its limit, by
chance between its two limits, and reports that it knows nothing: a rejection with a long reason would become doubt. The
limit here is one, far above what servers send. Called by clients, the command line, the demo and benchmarks.
"""

from collections.abc import Sequence

import grpc
import grpc.aio

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
_METADATA = (("grpc.max_metadata_size", MAX_METADATA_BYTES), ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES))


def dial(
    target: str, options: ChannelOptions = (), *, interceptors: Sequence[grpc.aio.ClientInterceptor] | None = None
) -> grpc.aio.Channel:
    """Return a channel to `target`, which connects when it is first used."""
    return grpc.aio.insecure_channel(target, [*_METADATA, *options, NO_PROXY], interceptors=interceptors)


def cause(details: str) -> str:
    """Return in words why a connection failed, of what gRPC says about it; empty when it says nothing that is known."""
    return next((words for sign, words in CAUSES if sign in details.lower()), "")


def dial_blocking(target: str, options: ChannelOptions = ()) -> grpc.Channel:
    """Return a channel to `target` for callers without an event loop; it connects when it is first used."""
    return grpc.insecure_channel(target, [*_METADATA, *options, NO_PROXY])
