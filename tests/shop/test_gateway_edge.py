"""What holds for every request, before any service is asked."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc.aio
import pytest
from amends_testkit.issuer import local_issuer
from amends_testkit.waiting import eventually
from shop_gateway import server

from shop.identity.v1 import identity_pb2, identity_pb2_grpc
from shop.orders.v1 import orders_pb2, orders_pb2_grpc

from .front import ORDER, PASSWORD, gateway

ADA = {"emailAddress": "ada@example.com", "password": PASSWORD}


def problem(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["reason"]


class Identity(identity_pb2_grpc.IdentityServiceServicer):
    """Answers when it is let, and knows what came with a call and what became of it."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.metadata: dict[str, Any] = {}
        self.left = 0.0

    async def SignUp(self, request: Any, context: Any) -> Any:
        self.metadata, self.left = dict(context.invocation_metadata()), context.time_remaining()
        self.began.set()
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return identity_pb2.SignUpResponse()

    SignIn: Any = SignUp
    Refresh: Any = SignUp
    SignOut: Any = SignUp
    SignOutEverywhere: Any = SignUp
    GetAccount: Any = SignUp
    CloseAccount: Any = SignUp


class Orders(orders_pb2_grpc.OrderServiceServicer):
    """Takes orders, and can tell nothing of them."""

    async def PlaceOrder(self, request: Any, context: Any) -> Any:
        order = orders_pb2.Order(order_id=request.order_id, state=orders_pb2.ORDER_STATE_PENDING)
        return orders_pb2.PlaceOrderResponse(order=order)

    async def GetOrder(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "")

    CancelOrder: Any = GetOrder
    Confirm: Any = GetOrder
    ListArticles: Any = GetOrder
    ListOrders: Any = GetOrder
    SetPrice: Any = GetOrder


@asynccontextmanager
async def identity() -> AsyncIterator[tuple[Identity, str]]:
    servicer = Identity()
    async with served(identity_pb2_grpc.add_IdentityServiceServicer_to_server, servicer) as target:
        yield servicer, target


@asynccontextmanager
async def served(add: Any, servicer: Any) -> AsyncIterator[str]:
    """The address of a service that does what a test says."""
    server = grpc.aio.server()
    add(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def raw(client: Any, request: bytes) -> bytes:
    """Send bytes to a gateway; all that it answers until it closes."""
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    writer.write(request)
    await writer.drain()
    answer = await reader.read()
    writer.close()
    return answer


async def test_an_unknown_address_and_an_unknown_method_are_problems():
    async with gateway() as client:
        missing = await client.get("/v1/nothing")
        wrong = await client.delete("/v1/orders")
    assert problem(missing) == (404, "ROUTE_UNKNOWN")
    assert missing.headers["content-type"] == "application/problem+json"
    assert problem(wrong) == (405, "METHOD_NOT_ALLOWED")
    assert {"GET", "HEAD", "POST"} == set(wrong.headers["allow"].split(", "))


async def test_a_service_that_is_not_there_is_unavailable_and_says_when_to_come_back():
    async with gateway() as client:
        answer = await client.get("/v1/categories")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_client_that_goes_away_ends_the_call_that_is_made_for_it():
    async with identity() as (service, target), gateway(identity_target=target) as client:
        asking = asyncio.create_task(client.post("/v1/accounts", json=ADA))
        await service.began.wait()
        assert service.left < 10
        asking.cancel()
        await asyncio.wait_for(service.cancelled.wait(), 5)  # its deadline is 8 s


async def test_what_only_our_own_may_say_is_believed_from_nobody_outside():
    async with identity() as (service, target), gateway(identity_target=target) as client:
        service.may_answer.set()
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        headers = {"traceparent": trace, "amends-idempotency-key": "k", "amends-run-id": "r", "x-request-id": "mine"}
        answer = await client.post("/v1/accounts", json=ADA, headers=headers)
    assert answer.status_code == 202
    assert not [name for name in service.metadata if name.startswith("amends-")]
    assert trace[3:35] not in service.metadata["traceparent"]
    assert answer.headers["x-request-id"] in service.metadata["traceparent"]


async def test_a_body_or_a_head_that_is_too_large_is_refused():
    async with gateway(max_body_bytes=2048, max_header_bytes=4096) as client:
        large = await client.post("/v1/accounts", content=b"x" * 2049)
        assert problem(large) == (413, "BODY_TOO_LARGE")

        async def parts() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"x" * 1000

        assert problem(await client.post("/v1/accounts", content=parts())) == (413, "BODY_TOO_LARGE")
        assert problem(await client.get("/v1/", headers={"x": "y" * 4096})) == (431, "HEADERS_TOO_LARGE")
        endless = await raw(client, b"GET /v1/ HTTP/1.1\r\nx: " + b"y" * 5000)
        assert endless.startswith(b"HTTP/1.1 431 ")
        nonsense = await raw(client, b"this is no request\r\n\r\n")
        assert json.loads(nonsense.partition(b"\r\n\r\n")[2])["reason"] == "REQUEST_UNREADABLE"


HOSTS = [b"", b"Host: a\r\nHost: b\r\n", b"Host: [\r\n", b"Host: a/b\r\n", b"Host:\r\n"]


async def test_a_request_names_one_host():
    async with gateway() as client:
        for host in HOSTS:
            for path in (b"/v1/", b"/basket"):
                answer = await raw(client, b"GET " + path + b" HTTP/1.1\r\nConnection: close\r\n" + host + b"\r\n")
                assert answer.startswith(b"HTTP/1.1 400 "), (host, path)
        assert (await raw(client, b"GET /v1/ HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_what_stands_after_a_body_is_no_header():
    head = b"GET /v1/me HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    async with gateway(max_header_bytes=4096) as client:
        trailed = await raw(client, head + b"Authorization: Bearer nonsense\r\n\r\n")
        assert json.loads(trailed.partition(b"\r\n\r\n")[2])["reason"] == "TOKEN_MISSING"
        _, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        writer.write(head)

        async def endless() -> None:
            while True:
                writer.write(b"x: " + b"y" * 1000 + b"\r\n")
                await writer.drain()

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(endless(), 5)
        writer.close()


async def test_an_answer_to_a_body_that_has_not_arrived_ends_the_connection():
    head = b"POST /v1/accounts HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n"
    async with gateway() as client:
        answer = await asyncio.wait_for(raw(client, head), 5)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer


async def test_who_goes_amid_a_body_is_no_error():
    async with gateway() as client:
        for sent in (b"", b"{"):
            _, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
            writer.write(b"POST /v1/accounts HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n" + sent)
            await writer.drain()
            writer.close()
        counted = {"method": "POST", "route": "", "status": "499"}
        value = client.runtime.registry.get_sample_value
        await eventually(lambda: value("http_requests_total", counted) == 2)


async def test_every_answer_forbids_what_a_browser_could_do_with_it():
    async with gateway() as client:
        answers = [await client.get(path) for path in ("/v1/", "/v1/nothing", "/v1/me", "/account", "/nowhere")]
        answers.append(await client.post("/basket"))
        for answer in answers:
            assert answer.headers["content-security-policy"].startswith("default-src 'none'"), answer.url
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-content-type-options"] == "nosniff"
        unreadable = (await raw(client, b"nonsense\r\n\r\n")).lower()
        assert b"content-security-policy: default-src 'none'" in unreadable
        assert b"cache-control: no-store" in unreadable


async def test_a_request_has_one_access_token_and_a_body_in_utf_8():
    async with gateway() as client:
        two = [("authorization", "Bearer a"), ("authorization", "Bearer b")]
        assert problem(await client.get("/v1/me", headers=two)) == (401, "TOKEN_MALFORMED")
        json_type = {"content-type": "application/json"}
        other = await client.post("/v1/accounts", content=json.dumps(ADA).encode("utf-16"), headers=json_type)
        assert problem(other) == (400, "BODY_UNREADABLE")


async def test_a_request_that_does_not_arrive_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(server, "HEAD_WITHIN", timedelta(milliseconds=100))
    async with gateway(request_timeout="200ms") as client:
        head = await raw(client, b"GET /v1/ HTTP/1.1\r\nx: y\r\n")
        body = b"POST /v1/accounts HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\nconnection: close\r\n\r\n{"
        assert head.startswith(b"HTTP/1.1 408 ")
        assert (await raw(client, body)).startswith(b"HTTP/1.1 408 ")


async def test_who_asks_too_often_is_told_when_to_come_back():
    async with gateway(rate_per_address=0.1) as client:
        assert (await client.get("/v1/")).status_code == 200
        for path in ("/v1/", "/basket"):
            refused = await client.get(path)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "10")
    async with gateway(rate_per_address=0.5, trusted_proxies=1) as client:
        told = [await client.get("/v1/", headers={"x-forwarded-for": "spoofed, 192.0.2.1"}) for _ in range(4)]
        other = await client.get("/v1/", headers={"x-forwarded-for": "192.0.2.2"})
    assert [answer.status_code for answer in told] == [200, 200, 429, 429]
    assert told[-1].json()["reason"] == "RATE_LIMITED"
    assert int(told[-1].headers["retry-after"]) in (1, 2)
    assert other.status_code == 200


async def test_a_forwarded_address_is_not_believed_where_no_proxy_is_trusted():
    async with gateway(rate_per_address=0.25) as client:
        told = [await client.get("/v1/", headers={"x-forwarded-for": f"192.0.2.{one}"}) for one in range(2)]
    assert [answer.status_code for answer in told] == [200, 429]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("", "TOKEN_MISSING"),
        ("Basic YTpi", "TOKEN_MISSING"),
        ("Bearer nonsense", "TOKEN_MALFORMED"),
        ("expired", "TOKEN_EXPIRED"),
        ("elsewhere", "TOKEN_AUDIENCE_WRONG"),
    ],
)
async def test_a_token_is_checked_before_any_service_is_asked(header: str, reason: str):
    with local_issuer() as issuer:
        made = {
            "expired": f"Bearer {issuer.token(exp=1)}",
            "elsewhere": f"Bearer {issuer.token(aud='elsewhere')}",
        }
        told = {"token_issuer": "https://issuer.test", "token_keys_url": issuer.url}
        async with gateway(**told) as client:
            answer = await client.get("/v1/me", headers={"authorization": made.get(header, header)})
    assert problem(answer) == (401, reason)
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_an_order_that_was_accepted_is_accepted_although_nobody_can_tell_its_end():
    with local_issuer() as issuer:
        async with served(orders_pb2_grpc.add_OrderServiceServicer_to_server, Orders()) as target:
            told = {"token_issuer": "https://issuer.test", "token_keys_url": issuer.url, "orders_target": target}
            async with gateway(**told) as client:
                headers = {"authorization": f"Bearer {issuer.token()}", "idempotency-key": "k", "prefer": "wait=5"}
                answer = await client.post("/v1/orders", json=ORDER, headers=headers)
    assert answer.status_code == 202, answer.text


async def test_a_request_under_way_is_answered_while_the_process_stops():
    async with identity() as (service, target):
        async with gateway(identity_target=target, drain="5s") as client:
            assert (await client.get("/v1/")).status_code == 200  # a connection that is idle when it stops
            asking = asyncio.create_task(client.post("/v1/accounts", json=ADA))
            await service.began.wait()
            asyncio.get_running_loop().call_later(0.3, service.may_answer.set)
            stopping = client.runtime.stop()
            answer, _ = await asyncio.gather(asking, stopping)
        assert answer.status_code == 202
        assert answer.headers["connection"] == "close"
