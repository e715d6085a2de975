"""Mutual TLS: who is let in, what is refused and why, and how certificates are renewed while calls go on."""

import asyncio
import json
from datetime import timedelta

import grpc
import pytest
from amends_chassis.access import Access
from amends_chassis.certificates import CertificateError, Certificates, read
from amends_chassis.dial import dial, dial_blocking
from amends_chassis.followed import RulesError
from amends_chassis.service import Runtime
from amends_embedded.authority import Authority, spiffe
from amends_testkit.service import refusal_of
from amends_testkit.waiting import eventually
from cryptography.hazmat.primitives.serialization import Encoding
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from prometheus_client import CollectorRegistry

from .echo import SERVICE, UNARY, Echo, Stub, serving

ORDERS, PAYMENTS, STRANGER = (spiffe("shop", name) for name in ("orders", "payments", "stranger"))


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def authority() -> Authority:
    return Authority.make()


@pytest.fixture
def papers(tmp_path, authority):
    """Make a folder of files for a name, by the installation's authority unless another is given."""

    def make(name: str, by: Authority = authority, **changed):
        by.certify(tmp_path / name, spiffe("shop", name), **changed)
        return tmp_path / name

    return make


def rules(*allowed):
    return json.dumps({"rules": [{"identities": [one], "methods": [method]} for one, method in allowed]})


async def test_who_has_a_certificate_of_the_installation_is_served_and_nobody_else(papers):
    async with serving(Echo(), tls_dir=papers("payments")) as runtime:
        async with dial(runtime.address, certificates=Certificates(papers("orders"))) as channel:
            await Stub(channel).unary(timeout=5)
        strangers = [
            grpc.aio.insecure_channel(runtime.address),
            grpc.aio.secure_channel(runtime.address, grpc.ssl_channel_credentials(Authority.make().pem)),
            grpc.aio.secure_channel(
                runtime.address, grpc.ssl_channel_credentials((papers("orders") / "ca.crt").read_bytes())
            ),
            dial(runtime.address, certificates=Certificates(papers("foreign", Authority.make()))),
        ]
        for channel in strangers:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await Stub(channel).unary(timeout=5)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            await channel.close()


async def test_a_server_that_goes_by_another_name_is_not_called(papers):
    async with serving(Echo(), tls_dir=papers("payments", names=["payments.shop.svc"])) as runtime:
        async with dial(runtime.address, certificates=Certificates(papers("orders"))) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await Stub(channel).unary(timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        named = [("grpc.ssl_target_name_override", "payments.shop.svc")]
        async with dial(runtime.address, named, certificates=Certificates(papers("orders"))) as channel:
            await Stub(channel).unary(timeout=5)


def test_a_caller_without_an_event_loop_shows_its_certificate_too(papers):
    async def serve(stop: asyncio.Event, address: asyncio.Future) -> None:
        async with serving(Echo(), tls_dir=papers("payments")) as runtime:
            address.set_result(runtime.address)
            await stop.wait()

    async def drive() -> int:
        stop, address = asyncio.Event(), asyncio.get_running_loop().create_future()
        task = asyncio.create_task(serve(stop, address))

        def ask(target: str) -> int:
            with dial_blocking(target, certificates=Certificates(papers("orders"))) as channel:
                return HealthStub(channel).Check(HealthCheckRequest(), timeout=5).status

        status = await asyncio.to_thread(ask, await address)
        stop.set()
        await task
        return status

    assert asyncio.run(drive()) == 1


async def test_leaf_and_authority_are_renewed_under_load_and_no_call_fails(papers, authority, tmp_path):
    """The leaf first, then the authority in three steps: both are trusted, all leaves are renewed, the old one goes."""
    server, client = papers("payments"), papers("orders")
    other = Authority.make("The next one")
    calls = 0
    stop = asyncio.Event()

    async def call(channel: grpc.aio.Channel) -> None:
        nonlocal calls
        while not stop.is_set():
            await Stub(channel).unary(timeout=5)
            calls += 1

    def trust(*authorities: Authority) -> None:
        for folder in (server, client):
            (folder / "ca.crt").write_bytes(b"".join(one.pem for one in authorities))

    async with serving(Echo(), tls_dir=server) as runtime:
        certificates = Certificates(client)
        async with dial(runtime.address, certificates=certificates) as channel:
            work = asyncio.create_task(call(channel))

            async def taken() -> None:
                """Wait until both sides have what the folders say, and some calls were made with it."""
                wanted = [read(folder) for folder in (server, client)]
                await eventually(lambda: [runtime.certificates.current, certificates.current] == wanted)
                goal = calls + 20
                await eventually(lambda: calls >= goal)

            authority.certify(server, PAYMENTS)
            authority.certify(client, ORDERS)
            await taken()
            trust(authority, other)
            await taken()
            for folder, identity in ((server, PAYMENTS), (client, ORDERS)):
                other.certify(tmp_path / "next", identity)
                for name in ("tls.key", "tls.crt"):
                    (tmp_path / "next" / name).replace(folder / name)
            await taken()
            trust(other)
            await taken()
            stop.set()
            await work
        async with dial(runtime.address, certificates=Certificates(papers("late"))) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await Stub(channel).unary(timeout=5)


def test_files_that_do_not_fit_are_refused_and_what_was_good_stays(papers, authority, capsys):
    clock = Clock()
    folder = papers("orders")
    registry = CollectorRegistry()
    certificates = Certificates(folder, clock=clock)
    certificates.expose(registry)
    good = certificates.current
    key = (folder / "tls.key").read_bytes()

    def renewals(outcome: str) -> float | None:
        return registry.get_sample_value("amends_certificate_renewals_total", {"outcome": outcome})

    (papers("other") / "tls.key").replace(folder / "tls.key")
    assert certificates.current is good, "the files are not looked at again within a second"
    clock.now += 1
    assert certificates.current is good
    assert renewals("refused") == 1
    assert "is not the key of" in capsys.readouterr().out
    clock.now += 1
    assert certificates.current is good
    assert renewals("refused") == 1, "the same files are refused once"
    (folder / "tls.key").write_bytes(key[:40])
    clock.now += 1
    assert certificates.current is good
    authority.certify(folder, ORDERS)
    clock.now += 1
    assert certificates.current is not good
    assert renewals("renewed") == 1
    ends = registry.get_sample_value("amends_certificate_not_after_timestamp_seconds")
    assert ends == certificates.current.not_after.timestamp()


def test_what_cannot_be_used_says_which_file_and_why(papers, authority, tmp_path):
    folder = papers("orders")

    def why(changed=None) -> str:
        with pytest.raises(CertificateError) as caught:
            read(changed or folder)
        return str(caught.value).replace(str(tmp_path), "")

    assert why(tmp_path / "nowhere") == "/nowhere/tls.crt cannot be read: No such file or directory"
    assert "has ended: certificate has expired" in why(papers("late", lives=timedelta(seconds=-1)))
    authority.certify(tmp_path / "nameless", "https://example.org/x")
    assert "must have exactly one URI, spiffe://TRUST-DOMAIN/PATH; it has ['https://" in why(tmp_path / "nameless")
    (folder / "ca.crt").write_bytes(Authority.make().pem)
    assert why().startswith("/orders/tls.crt is not vouched for by /orders/ca.crt: ")
    (folder / "ca.crt").write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert why().startswith("/orders/ca.crt holds no certificate in PEM: ")
    (folder / "tls.key").write_text("no key")
    assert why().startswith(("/orders/ca.crt holds", "/orders/tls.key is no private key"))


def test_an_authority_is_kept_and_its_key_is_for_its_owner_alone(tmp_path):
    first = Authority.kept(tmp_path / "authority")
    again = Authority.kept(tmp_path / "authority")
    assert first.certificate.public_bytes(Encoding.PEM) == again.pem
    again.certify(tmp_path / "orders", ORDERS)
    assert read(tmp_path / "orders").identity == ORDERS
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {0o600}


async def test_only_who_a_rule_names_may_call_a_method(papers, tmp_path):
    (tmp_path / "access.json").write_text(rules((ORDERS, UNARY)))
    async with serving(Echo(), tls_dir=papers("payments"), access=tmp_path / "access.json") as runtime:

        async def answer(name: str, stream: bool = False) -> str:
            async with dial(runtime.address, certificates=Certificates(papers(name))) as channel:
                try:
                    if stream:
                        await anext(aiter(Stub(channel).watch(timeout=5)))
                    else:
                        await Stub(channel).unary(timeout=5)
                except grpc.aio.AioRpcError as error:
                    return " ".join((*refusal_of(error), str(error.details()).partition(" may not")[0]))
                return "OK"

        assert await answer("orders") == "OK"
        assert await answer("orders", stream=True) == f"PERMISSION_DENIED NO_ACCESS {ORDERS}"
        assert await answer("stranger") == f"PERMISSION_DENIED NO_ACCESS {STRANGER}"
        async with dial(runtime.address, certificates=Certificates(papers("stranger"))) as channel:
            assert (await HealthStub(channel).Check(HealthCheckRequest(), timeout=5)).status == 1
        (tmp_path / "access.json").write_text(rules((STRANGER, f"/{SERVICE}/*")))

        async def changed() -> bool:
            return await answer("stranger") == "OK" and (await answer("orders")).startswith(
                "PERMISSION_DENIED NO_ACCESS"
            )

        await eventually(changed)


def test_rules_that_cannot_be_read_leave_the_former_ones(tmp_path, capsys):
    clock = Clock()
    path = tmp_path / "access.json"
    path.write_text(rules((ORDERS, UNARY)))
    access = Access(path, clock=clock)
    assert access.missing([UNARY, "/a.B/C"]) == ["/a.B/C"]
    path.write_text('{"rules": [{"identities": ["spi')
    clock.now += 1
    assert access.missing([UNARY]) == []
    assert "rules.refused" in capsys.readouterr().out
    path.write_text(rules((ORDERS, "/a.B/C")))
    clock.now += 1
    assert access.missing([UNARY, "/a.B/C"]) == [UNARY]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "an object with the list `rules`"),
        ('{"rules": [{"methods": ["/a.B/C"]}]}', "rules[0].identities must be a list"),
        ('{"rules": [{"identities": ["cn=orders"], "methods": ["/a.B/C"]}]}', "'cn=orders' must be a text that begins"),
        ('{"rules": [{"identities": ["spiffe://a/b"], "methods": []}]}', "rules[0].methods must be a list"),
    ],
)
def test_rules_that_make_no_sense_say_where(tmp_path, text, why):
    (tmp_path / "access.json").write_text(text)
    with pytest.raises(RulesError) as caught:
        Access(tmp_path / "access.json")
    assert why in str(caught.value)


async def test_rules_without_certificates_are_refused(tmp_path):
    (tmp_path / "access.json").write_text(rules((ORDERS, UNARY)))
    with pytest.raises(RulesError, match="AMENDS_TLS_DIR"):
        async with serving(Echo(), access=tmp_path / "access.json") as runtime:
            assert isinstance(runtime, Runtime)
