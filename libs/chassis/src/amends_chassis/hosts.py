"""The notation of hosts: `::1` for a socket, `[::1]:80` in an address. Used by everything that listens.

A wildcard means every family that the machine has: `::` listens on IPv4 too, and on IPv4 alone where IPv6 is off, so
that one setting fits every cluster.
"""

import socket

WILDCARD = "::"
_EVERYWHERE_IPV4 = "0.0.0.0"  # noqa: S104 - what `::` means where IPv6 is off; the default is loopback


def bare(host: str) -> str:
    """Return a host without the brackets that IPv6 addresses have in front of a port."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def address(host: str, port: int) -> str:
    """Return `host:port`, with an IPv6 address in brackets."""
    host = bare(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def to_listen_on(host: str) -> str:
    """Return the bare host to bind; for the IPv6 wildcard on a machine without IPv6 that of IPv4."""
    host = bare(host)
    if host != WILDCARD:
        return host
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as trial:
            trial.bind((host, 0))
    except OSError:
        return _EVERYWHERE_IPV4
    return host


def why_not(host: str, port: int) -> str:
    """Return why the address cannot be used, in the system's words: the port is taken, the host is not ours, ..."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            bare(host), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.bind(where)
    except OSError as error:
        return error.strerror or str(error)
    return "gRPC does not say why"
