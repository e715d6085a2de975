"""Whatever a stranger puts into a field of a request, every service of the shop answers in words of its contract."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib import import_module
from inspect import signature
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
from amends_chassis.dial import dial
from amends_chassis.service import running
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from pydantic import SecretStr

SERVICES = {
    "orders": "OrderService",
    "inventory": "InventoryService",
    "payments": "PaymentService",
    "shipping": "ShippingService",
    "identity": "IdentityService",
    "customers": "CustomerService",
    "marketing": "MarketingService",
    "notifications": "NotificationService",
    "catalog": "CatalogService",
}
BAD = ("INTERNAL", "UNKNOWN", "DATA_LOSS", "DEADLINE_EXCEEDED", "CANCELLED")
TEXTS = (
    "",
    "\0",
    "a\0b",
    "a" * 20_000,
    "\u202etxt",
    "\x1b]0;x\x07",
    "a\nb",
    "'; DROP TABLE orders; --",
    "%s{}\\",
    "\U0010ffff",
    "MDAwMS0wMS0wMVQwMDowMDowMCsxNDowMHx4",  # a page token of the year 1, in a time zone that makes it earlier
    "OTk5OS0xMi0zMVQyMzo1OTo1OS0xNDowMHx4",
    "fHw=",
)
NUMBERS = {
    FieldDescriptor.CPPTYPE_INT32: (0, -1, 1, 2**31 - 1, -(2**31)),
    FieldDescriptor.CPPTYPE_INT64: (0, -1, 1, 2**63 - 1, -(2**63)),
    FieldDescriptor.CPPTYPE_BOOL: (True, False),
    FieldDescriptor.CPPTYPE_ENUM: (0, -1, 1, 77, 2**31 - 1),
}


def sound(kind: Any) -> Message:
    """A request in which every field says something plausible."""
    message: Message = message_factory.GetMessageClass(kind)()
    for field in kind.fields:
        values = plausible(field)
        if field.is_repeated:
            getattr(message, field.name).extend(values)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(values[0])
        else:
            setattr(message, field.name, values[0])
    return message


def plausible(field: FieldDescriptor) -> list[Any]:
    known = {
        "currency": "EUR",
        "country": "DE",
        "postal_code": "10115",
        "card_token": "tok_visa",
        "page_token": "",
        "carrier": "postal",
        "email_address": "ada@example.com",
        "password": "correct horse battery",
        "locale": "de",
        "last_four": "4242",
    }
    if field.message_type is not None:
        return [sound(field.message_type)]
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return [known.get(field.name, "a-1")]
    return [False] if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL else [1]


def hostile(message: Message) -> Iterator[tuple[str, Message]]:
    """The message with one thing about one field made hostile, for each field and thing, in messages inside too."""
    for field in message.DESCRIPTOR.fields:
        for text, change in changes(message, field):
            other = type(message)()
            other.CopyFrom(message)
            change(other)
            yield f"{field.name}{text}", other


def changes(message: Message, field: Any) -> Iterator[tuple[str, Any]]:
    name = field.name
    yield "=absent", lambda other: other.ClearField(name)
    if field.is_repeated:
        yield "*200", lambda other: getattr(other, name).extend(list(getattr(message, name)) * 200)
        if field.message_type is None:
            for value in values_of(field):
                yield f"[0]={str(value)[:20]!r}", lambda other, value=value: getattr(other, name).insert(0, value)
            return
        for text, inner in hostile(getattr(message, name)[0]):
            yield f"[0].{text}", lambda other, inner=inner: getattr(other, name)[0].CopyFrom(inner)
    elif field.message_type is not None:
        for text, inner in hostile(getattr(message, name)):
            yield f".{text}", lambda other, inner=inner: getattr(other, name).CopyFrom(inner)
    else:
        for value in values_of(field):
            yield f"={str(value)[:20]!r}", lambda other, value=value: setattr(other, name, value)


def values_of(field: Any) -> Sequence[Any]:
    return TEXTS if field.cpp_type == FieldDescriptor.CPPTYPE_STRING else NUMBERS[field.cpp_type]


def service_of(name: str) -> ServiceDescriptor:
    found: ServiceDescriptor = import_module(f"shop.{name}.v1.{name}_pb2").DESCRIPTOR.services_by_name[SERVICES[name]]
    return found


TOLD: Mapping[str, Mapping[str, Any]] = {
    "orders": {"orchestrator_target": "127.0.0.1:1", "inventory_target": "127.0.0.1:1"},
    "identity": {"key_secret": SecretStr("k" * 32)},
}
METHODS = [(name, method) for name in SERVICES for method in service_of(name).methods_by_name]


@asynccontextmanager
async def serve(name: str, url: str) -> AsyncIterator[grpc.aio.Channel]:
    """One service of the shop, whose neighbours are away."""
    main, settings = import_module(f"shop_{name}.__main__"), import_module(f"shop_{name}.settings")
    told = settings.Settings(database_url=SecretStr(url), **TOLD.get(name, {}))
    takes_settings = len(signature(main.assemble).parameters) == 2
    assemble = partial(main.assemble, told) if takes_settings else main.assemble
    async with running(told, assemble) as runtime, dial(runtime.address) as channel:
        yield channel


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def channels(postgres: Any) -> AsyncIterator[dict[str, grpc.aio.Channel]]:
    async with AsyncExitStack() as stack:
        opened = {}
        for name in SERVICES:
            url = await postgres.create(f"hostile_{name}", f"hostile_{name}")
            opened[name] = await stack.enter_async_context(serve(name, url))
        yield opened
    for name in SERVICES:
        await postgres.drop(f"hostile_{name}", f"hostile_{name}")


async def code_of(channel: grpc.aio.Channel, method: MethodDescriptor, request: Message) -> str:
    path = f"/{method.containing_service.full_name}/{method.name}"
    try:
        call: Any = channel.unary_unary(path)
        await call(request.SerializeToString(), timeout=20)
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


@pytest.mark.parametrize(("name", "method_name"), METHODS, ids=[f"{name}.{method}" for name, method in METHODS])
async def test_no_field_of_a_request_makes_a_service_fail(
    channels: dict[str, grpc.aio.Channel], name: str, method_name: str
):
    method = service_of(name).methods_by_name[method_name]
    requests = [("as it should be", sound(method.input_type)), *hostile(sound(method.input_type))]
    bad: dict[str, str] = {}
    for start in range(0, len(requests), 16):
        batch = requests[start : start + 16]
        codes = await asyncio.gather(*(code_of(channels[name], method, request) for _, request in batch))
        bad |= {text: code for (text, _), code in zip(batch, codes, strict=True) if code in BAD}
    assert bad == {}


async def test_a_request_that_is_too_large_is_not_taken_apart(channels: dict[str, grpc.aio.Channel]):
    method = service_of("orders").methods_by_name["PlaceOrder"]
    order = sound(method.input_type)
    order.lines.extend([order.lines[0]] * 590_000)  # type: ignore[attr-defined]
    assert await code_of(channels["orders"], method, order) == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize(
    ("name", "method_name"),
    [(name, method) for name, method in METHODS if method in ("PlaceOrder", "Reserve", "Receive", "Book")],
)
async def test_more_lines_than_a_request_may_have_are_refused_whatever_is_in_them(
    channels: dict[str, grpc.aio.Channel], name: str, method_name: str
):
    method = service_of(name).methods_by_name[method_name]
    request = sound(method.input_type)
    request.lines.extend([request.lines[0]] * 100)  # type: ignore[attr-defined]
    assert await code_of(channels[name], method, request) == "INVALID_ARGUMENT"
