"""Orders over REST: one key is one order, whatever is lost or repeated."""

import asyncio
import json
from uuid import uuid4

import httpx

from .front import ADDRESS, ORDER, Front, gateway


def problem(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["reason"]


async def test_ten_requests_at_once_with_one_key_are_one_order_and_one_answer(client, front: Front, nats_market):
    me = await front.person(client)
    headers = me | {"idempotency-key": "basket-1"}
    answers = await asyncio.gather(*(client.post("/v1/orders", json=ORDER, headers=headers) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    [order_id] = {answer.json()["orderId"] for answer in answers}
    assert {answer.headers["location"] for answer in answers} == {f"/v1/orders/{order_id}"}
    await nats_market.ended(order_id)
    later = await client.post("/v1/orders", json=ORDER, headers=headers)
    assert later.content == answers[0].content  # the first answer may have been lost
    mine = (await client.get("/v1/orders", headers=me)).json()["orders"]
    assert [one["orderId"] for one in mine] == [order_id]


async def test_the_same_key_with_another_body_is_unprocessable_and_says_why(client, front: Front):
    headers = await front.person(client) | {"idempotency-key": "k"}
    assert (await client.post("/v1/orders", json=ORDER, headers=headers)).status_code == 202
    other = ORDER | {"lines": [{"sku": "mug", "quantity": 2}]}
    assert problem(await client.post("/v1/orders", json=other, headers=headers)) == (422, "ORDER_REUSED")


async def test_one_key_of_two_people_is_two_orders(client, front: Front):
    ada, eve = await front.person(client), await front.person(client)
    key = {"idempotency-key": "k"}
    placed = [await client.post("/v1/orders", json=ORDER, headers=one | key) for one in (ada, eve)]
    assert len({answer.json()["orderId"] for answer in placed}) == 2


async def test_who_prefers_to_wait_is_answered_with_the_end(client, front: Front):
    headers = await front.person(client) | {"idempotency-key": "k"}
    prefers = [("prefer", "respond-async"), ("prefer", "wait=8")]
    answer = await client.post("/v1/orders", json=ORDER, headers=[*headers.items(), *prefers])
    assert answer.status_code == 201
    assert answer.headers["preference-applied"] == "wait=8"
    assert answer.json()["state"] == "ORDER_STATE_CONFIRMED"
    assert "cancel" not in answer.json()["_links"]


async def test_an_order_can_be_placed_under_an_id_of_ones_own(client, front: Front):
    me = await front.person(client)
    address = f"/v1/orders/{uuid4()}"
    first = await client.put(address, json=ORDER, headers=me)
    again = await client.put(address, json=ORDER, headers=me)
    assert first.status_code == again.status_code == 202
    assert first.content == again.content
    eve = await front.person(client)
    assert problem(await client.put(address, json=ORDER, headers=eve)) == (422, "ORDER_REUSED")
    for read in (address, f"{address}/progress"):
        assert problem(await client.get(read, headers=eve)) == (404, "ORDER_UNKNOWN")
    assert problem(await client.post(f"{address}/cancel", headers=eve)) == (404, "ORDER_UNKNOWN")


async def test_an_order_tells_its_progress_until_it_has_ended(client, front: Front):
    me = await front.person(client)
    placed = await client.post("/v1/orders", json=ORDER, headers=me | {"idempotency-key": "k"})
    told = await client.get(placed.json()["_links"]["progress"]["href"], headers=me)
    assert told.headers["content-type"].startswith("text/event-stream")
    events = [dict(line.split(": ", 1) for line in one.split("\n")) for one in told.text.strip().split("\n\n")]
    states = [json.loads(one["data"])["state"] for one in events]
    assert events[-1]["event"] == "end"
    assert states[-1] == "ORDER_STATE_CONFIRMED"
    assert len({one["id"] for one in events}) == len(events)


async def test_who_is_told_of_an_order_takes_nobody_else_s_place(front: Front, nats_market):
    async with nats_market.without("inventory"), gateway(**(front.settings | {"max_concurrent_calls": 1})) as client:
        me = await front.person(client)
        placed = await client.post("/v1/orders", json=ORDER, headers=me | {"idempotency-key": "k"})
        progress = placed.json()["_links"]["progress"]["href"]
        async with client.stream("GET", progress, headers=me) as told:
            assert await anext(told.aiter_lines())
            assert (await client.get("/v1/")).status_code == 200
            head = await asyncio.wait_for(client.head(progress, headers=me), 5)  # it has no end to wait for
            assert (head.status_code, head.headers["content-type"]) == (200, told.headers["content-type"])


async def test_an_order_is_cancelled_while_it_is_pending_and_not_after(client, front: Front, nats_market):
    me = await front.person(client)
    async with nats_market.without("inventory"):
        placed = await client.post("/v1/orders", json=ORDER, headers=me | {"idempotency-key": "k"})
        order = (await client.get(placed.headers["location"], headers=me)).json()
        cancelled = await client.post(order["_links"]["cancel"]["href"], headers=me)
        assert cancelled.status_code == 202, cancelled.text
    assert (await nats_market.ended(order["orderId"])).state == 3  # REJECTED
    again = await client.post(f"/v1/orders/{order['orderId']}/cancel", headers=me)
    assert (again.status_code, again.json()["state"]) == (202, "ORDER_STATE_REJECTED")
    waited = {"idempotency-key": "other", "prefer": "wait=8"}
    confirmed = await client.post("/v1/orders", json=ORDER, headers=me | waited)
    late = await client.post(f"{confirmed.headers['location']}/cancel", headers=me)
    assert problem(late) == (409, "ORDER_CLOSED")


async def test_a_wrong_body_names_what_is_wrong(client, front: Front):
    headers = await front.person(client) | {"idempotency-key": "k"}
    unknown = await client.post("/v1/orders", json=ORDER | {"customerId": "eve"}, headers=headers)
    assert problem(unknown) == (400, "BODY_INVALID")
    assert "customerId" in unknown.json()["detail"]
    wrong = ORDER | {"address": ADDRESS | {"country": "Germany"}}
    assert "address.country" in (await client.post("/v1/orders", json=wrong, headers=headers)).json()["detail"]
    assert (await client.post("/v1/orders", content="{", headers=headers)).status_code == 415
    broken = headers | {"content-type": "application/json"}
    assert problem(await client.post("/v1/orders", content="{", headers=broken)) == (400, "BODY_UNREADABLE")
    twice = '{"lines": [], "lines": []}'
    assert problem(await client.post("/v1/orders", content=twice, headers=broken)) == (400, "BODY_UNREADABLE")
