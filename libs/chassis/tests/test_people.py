"""Which people may call what, and for whom a handler learns that it works."""

import grpc
import pytest
import pytest_asyncio
from amends_chassis.people import AUTHORIZATION, current_principal, may_see, whose_alone
from amends_chassis.service import running
from amends_testkit.issuer import AUDIENCE, ISSUER, local_issuer
from amends_testkit.service import refusal_of
from amends_testkit.waiting import eventually
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import Default
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import StringValue

from amends.options.v1 import people_pb2

from .echo import settings

SERVICE = "test.people.v1.PeopleService"
RULES = {
    "Own": people_pb2.People(),
    "Staff": people_pb2.People(roles=["staff", "owner"]),
    "Both": people_pb2.People(roles=["staff"], services=True),
    "Open": people_pb2.People(anybody=True),
    "Services": None,
    "Watch": people_pb2.People(),
    "Seen": people_pb2.People(services=True),
    "Relayed": people_pb2.People(),
}
"""Methods, and what their contract says about people."""


def contract():
    file = FileDescriptorProto(name="test/people/v1/people.proto", package="test.people.v1", syntax="proto3")
    file.dependency.extend(["google/protobuf/empty.proto", "google/protobuf/wrappers.proto"])
    service = file.service.add(name="PeopleService")
    for name, rule in RULES.items():
        method = service.method.add(name=name, input_type=".google.protobuf.Empty")
        method.output_type = ".google.protobuf.StringValue"
        if rule is not None:
            method.options.Extensions[people_pb2.people].CopyFrom(rule)
    return file


Default().AddSerializedFile(contract().SerializeToString())


class Handlers:
    """Each method says for whom it works; one asks another one."""

    channel: grpc.aio.Channel

    async def answer(self, request, context):
        principal = current_principal()
        return StringValue(value="a service" if principal is None else principal.subject)

    async def seen(self, request, context):
        seen = [owner for owner in ("ada", "bob") if may_see(owner, "staff", "audit")]
        return StringValue(value=f"{','.join(seen)} {whose_alone('staff', 'audit')}")

    async def relayed(self, request, context):
        wire = (Empty.SerializeToString, StringValue.FromString)
        return await self.channel.unary_unary(f"/{SERVICE}/Both", *wire)(Empty())

    async def watch(self, request, context):
        yield await self.answer(request, context)


def register(servicer, server):
    wire = {"request_deserializer": Empty.FromString, "response_serializer": StringValue.SerializeToString}
    unary = grpc.unary_unary_rpc_method_handler(servicer.answer, **wire)
    handlers = {name: unary for name in RULES if name != "Watch"}
    handlers["Relayed"] = grpc.unary_unary_rpc_method_handler(servicer.relayed, **wire)
    handlers["Seen"] = grpc.unary_unary_rpc_method_handler(servicer.seen, **wire)
    handlers["Watch"] = grpc.unary_stream_rpc_method_handler(servicer.watch, **wire)
    server.add_registered_method_handlers(SERVICE, handlers)


@pytest.fixture(scope="module")
def issuer():
    with local_issuer() as issuer:
        yield issuer


def told(issuer, **more):
    """The settings of a service that is told who gives out tokens."""
    asked = {"token_issuer": ISSUER, "token_audience": AUDIENCE, "token_keys_url": issuer.url}
    return settings(**asked | more)


class Client:
    """Calls the methods of a running service."""

    def __init__(self, runtime):
        self._channel = runtime.channel(runtime.address)

    async def says(self, method, *metadata):
        """Return whom the method works for, or code and reason of its refusal."""
        kind = "unary_stream" if method == "Watch" else "unary_unary"
        made = getattr(self._channel, kind)(f"/{SERVICE}/{method}", Empty.SerializeToString, StringValue.FromString)
        try:
            call = made(Empty(), metadata=metadata)
            return (await call.read() if method == "Watch" else await call).value
        except grpc.aio.AioRpcError as refused:
            return refusal_of(refused)


async def assemble(runtime):
    handlers = Handlers()
    handlers.channel = runtime.channel(runtime.address)
    runtime.add(register, handlers, SERVICE)


@pytest_asyncio.fixture
async def client(issuer):
    async with running(told(issuer), assemble) as runtime:
        yield Client(runtime)


def bearer(token, scheme="Bearer"):
    return AUTHORIZATION, f"{scheme} {token}"


async def test_each_method_is_called_by_those_whom_its_contract_names(client, issuer):
    nobody, ada = (), (bearer(issuer.token("ada")),)
    staff = (bearer(issuer.token("sam", roles=["staff"])),)
    missing, role = ("UNAUTHENTICATED", "TOKEN_MISSING"), ("PERMISSION_DENIED", "ROLE_MISSING")
    services = ("PERMISSION_DENIED", "NOT_FOR_PEOPLE")
    said = {
        method: [await client.says(method, *who) for who in (nobody, ada, staff)]
        for method in RULES
        if method not in ("Relayed", "Seen")
    }
    assert said == {
        "Own": [missing, "ada", "sam"],
        "Watch": [missing, "ada", "sam"],
        "Staff": [missing, role, "sam"],
        "Both": ["a service", role, "sam"],
        "Open": ["a service"] * 3,
        "Services": ["a service", services, services],
    }


async def test_a_token_that_is_not_believed_is_worse_than_none(client, issuer):
    expired = bearer(issuer.token(exp=1))
    assert await client.says("Own", expired) == ("UNAUTHENTICATED", "TOKEN_EXPIRED")
    assert await client.says("Both", expired) == ("UNAUTHENTICATED", "TOKEN_EXPIRED")
    assert await client.says("Open", expired) == "a service", "who refreshes a session still sends the old one"


async def test_there_is_one_way_to_show_a_token(client, issuer):
    token = issuer.token("ada")
    assert await client.says("Own", bearer(token, "bearer")) == "ada"
    malformed = ("UNAUTHENTICATED", "TOKEN_MALFORMED")
    assert await client.says("Own", bearer(token), bearer(issuer.token("bob"))) == malformed
    for other in ((AUTHORIZATION, token), bearer(token, "Basic"), (AUTHORIZATION, "Bearer ")):
        assert await client.says("Own", other) == malformed
    assert await client.says("Own", ("x-authorization", f"Bearer {token}")) == ("UNAUTHENTICATED", "TOKEN_MISSING")


async def test_nobody_is_left_behind_for_the_next_call(client, issuer):
    assert await client.says("Own", bearer(issuer.token("ada"))) == "ada"
    assert await client.says("Both") == "a service"


async def test_a_token_goes_no_further_than_the_service_that_it_is_shown_to(client, issuer):
    assert await client.says("Relayed", bearer(issuer.token("ada"))) == "a service"


async def test_where_tokens_are_not_required_a_call_without_one_is_a_services(issuer):
    async with running(told(issuer, token_required=False), assemble) as runtime:
        client = Client(runtime)
        assert await client.says("Own") == "a service"
        assert await client.says("Own", bearer(issuer.token("ada"))) == "ada"
        assert await client.says("Own", bearer(issuer.token(aud="else"))) == ("UNAUTHENTICATED", "TOKEN_AUDIENCE_WRONG")


async def test_without_an_issuer_no_token_is_looked_at():
    async with running(settings(), assemble) as runtime:
        assert runtime.tokens is None
        assert await Client(runtime).says("Own", bearer("x")) == "a service"


async def test_an_issuer_needs_an_audience(issuer):
    with pytest.raises(ValueError, match="AMENDS_TOKEN_AUDIENCE"):
        async with running(told(issuer, token_audience=None), assemble):
            pass


async def test_keys_are_where_the_issuer_is_unless_told(issuer):
    base = issuer.url.removesuffix("/.well-known/jwks.json")
    async with running(told(issuer, token_issuer=f"{base}/", token_keys_url=None), assemble) as runtime:
        assert await Client(runtime).says("Own", bearer(issuer.token("ada", iss=f"{base}/"))) == "ada"
        labels = {"outcome": "verified"}
        await eventually(lambda: runtime.registry.get_sample_value("amends_access_tokens_total", labels) == 1)


async def test_an_owner_may_see_and_a_role_and_a_service(client, issuer):
    assert await client.says("Seen", bearer(issuer.token("ada"))) == "ada ada"
    assert await client.says("Seen", bearer(issuer.token("ada", roles=["guest"]))) == "ada ada"
    assert await client.says("Seen", bearer(issuer.token("sam", roles=["staff"]))) == "ada,bob "
    assert await client.says("Seen") == "ada,bob "
