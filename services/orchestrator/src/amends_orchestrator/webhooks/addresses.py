"""Which addresses a webhook may reach: public ones, and those of networks that the administrator allows it.

A name is looked up once for each attempt, and the connection is made to an address that was checked, so a name that
points elsewhere a moment later leads nowhere. Whatever writes an address differently (2130706433, 0x7f.1, or
::ffff:7f00:1) is an address like others by then.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from amends_orchestrator.webhooks.destinations import Destination, IpNetwork

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Lookup = Callable[[str, int], list[str]]

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
# What the special-purpose registries of IANA call not globally reachable, and what is no unicast. Beside them the
# address at which Azure answers its virtual machines.
NOT_PUBLIC: tuple[IpNetwork, ...] = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "168.63.129.16/32",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",
        ),
    )
)
PUBLIC_V6 = ipaddress.ip_network("2000::/3")
"""Of IPv6 only this is given out; in it are documentation, protocols, and tunnels to IPv4."""
NOT_PUBLIC_V6: tuple[IpNetwork, ...] = tuple(
    map(
        ipaddress.ip_network,
        ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
    )
)


class AddressRefusedError(Exception):
    """No address of the destination may be reached. The text is for people, and has no address in it."""


@dataclass(frozen=True, slots=True)
class CheckedAddress:
    """An address that was checked, and the port."""

    address: IpAddress
    port: int


def allowed(address: IpAddress, networks: Sequence[IpNetwork]) -> bool:
    """Return whether an address may be reached. A mapped IPv4 address is the IPv4 address."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if any(address in network for network in networks):
        return True
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in NOT_PUBLIC)
    return address in PUBLIC_V6 and not any(address in network for network in NOT_PUBLIC_V6)


def is_loopback(address: IpAddress) -> bool:
    """Return whether an address is of this machine alone."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in LOOPBACK)


def check(found: Sequence[str], destination: Destination) -> list[CheckedAddress]:
    """Return the addresses that may be reached, in the order in which they were found. Raises AddressRefusedError."""
    url = destination.url
    addresses = [ipaddress.ip_address(text) for text in found if "%" not in text]  # a zone is of this machine's links
    good = [address for address in addresses if allowed(address, destination.networks)]
    if not good:
        raise AddressRefusedError(
            f"{url.host} has no address that may be reached: its addresses are not public, and allowNetworks of"
            f" {destination.name} has none of them"
        )
    if url.scheme == "http" and not all(map(is_loopback, good)):
        raise AddressRefusedError(f"{url.host} is not this machine, so its URL must begin with https://")
    return [CheckedAddress(address, url.port) for address in good]


def look_up(host: str, port: int) -> list[str]:
    """Return the addresses of a host, each once. Raises OSError. It blocks for as long as the resolver takes."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Resolver:
    """Looks names up for one destination, in a thread of its own at a time.

    The event loop's own way has a few threads for everybody: a destination whose resolver hangs would fill them, and
    the orchestrator could not even reach its database.
    """

    def __init__(self, look_up: Lookup = look_up) -> None:
        self._look_up = look_up
        self._looking: dict[tuple[str, int], asyncio.Future[list[str]]] = {}

    async def resolve(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host. Raises OSError. Whoever gives up waiting leaves the thread to those after."""
        looking = self._looking.get((host, port))
        if looking is None:
            looking = self._looking[host, port] = self._begin(host, port)
            looking.add_done_callback(lambda _: self._looking.pop((host, port), None))
        return await asyncio.shield(looking)

    def _begin(self, host: str, port: int) -> asyncio.Future[list[str]]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str]] = loop.create_future()

        def settle(found: list[str] | Exception) -> None:
            if answer.done():
                return
            if isinstance(found, Exception):
                answer.set_exception(found)
                answer.exception()  # whoever waited may have given up
            else:
                answer.set_result(found)

        def work() -> None:
            found: list[str] | Exception
            try:
                found = self._look_up(host, port)
            except Exception as error:
                found = error
            try:
                loop.call_soon_threadsafe(settle, found)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return

        threading.Thread(target=work, name=f"webhook lookup of {host}", daemon=True).start()
        return answer
