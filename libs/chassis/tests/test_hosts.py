"""Services listen on IPv6, on both families, and on what the machine has; in a network without IPv4 too."""

import asyncio
import errno
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import grpc
import pytest
from amends_chassis import hosts

from .echo import Echo, Stub, serving


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def _has_ipv6() -> bool:
    return hosts.to_listen_on("::") == "::"


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")


@pytest.mark.parametrize(
    ("host", "said"),
    [("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80"), ("[::1]", "[::1]:80"), ("::", "[::]:80"), ("pay", "pay:80")],
)
def test_an_address_has_brackets_where_it_needs_them(host, said):
    assert hosts.address(host, 80) == said


@needs_ipv6
@pytest.mark.parametrize("host", ["::1", "[::1]", "::", "[::]"])
async def test_a_service_listens_on_ipv6_and_answers_there(host):
    async with serving(Echo(), host=host) as runtime:
        families = ["[::1]"] if host.strip("[]") == "::1" else ["[::1]", "127.0.0.1"]
        port, http_port = (where.rpartition(":")[2] for where in (runtime.address, runtime.metrics_address))
        for reached in families:
            async with grpc.aio.insecure_channel(f"{reached}:{port}") as channel:
                assert (await Stub(channel).unary("x")).value == "x"
            assert await asyncio.to_thread(_status, f"http://{reached}:{http_port}/metrics") == 200


def test_the_wildcard_falls_back_where_ipv6_is_off(monkeypatch):
    real = socket.socket

    def without_ipv6(family, *rest):
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, *rest)

    monkeypatch.setattr(socket, "socket", without_ipv6)
    assert hosts.to_listen_on("[::]") == "0.0.0.0"
    assert hosts.to_listen_on("::1") == "::1"  # asked for by name, so it is not replaced


async def test_a_host_that_is_not_of_this_machine_does_not_blame_the_port():
    with pytest.raises(OSError, match=r"192\.0\.2\.1:0: Cannot assign requested address"):
        async with serving(Echo(), host="192.0.2.1"):
            pass


async def test_health_over_http_says_whether_the_service_is_ready():
    async with serving(Echo()) as runtime:

        async def statuses() -> list[int]:
            paths = ("/healthz", "/readyz")
            return [await asyncio.to_thread(_status, f"http://{runtime.metrics_address}{path}") for path in paths]

        assert await statuses() == [200, 200]
        await runtime.health.report("database", False)
        assert await statuses() == [200, 503]


ALONE = """
import asyncio
from amends_chassis.ask import ask
from amends_chassis.service import running
from amends_chassis.settings import ServiceSettings

async def assemble(runtime):
    pass

async def main():
    async with running(ServiceSettings(name="alone", host="[::]"), assemble) as runtime:
        port = runtime.address.rpartition(":")[2]
        print(await ask(f"[::1]:{port}", "readiness"))

asyncio.run(main())
"""
# A network namespace whose only address is ::1.
NO_IPV4 = 'ip link set lo up && ip address del 127.0.0.1/8 dev lo && exec "$0" -c "$1"'


def test_a_service_serves_in_a_network_without_ipv4():
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("needs unshare and ip")
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("may not make a network namespace")
    command = ["unshare", "--net", "sh", "-c", NO_IPV4, sys.executable, ALONE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "SERVING" in done.stdout.splitlines()
