"""EventsService as it is served by a service with a real broker: what is shown, what is decided, and who may."""

import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import uuid4

import grpc
import pytest
from amends_chassis.certificates import Certificates
from amends_chassis.dial import dial
from amends_chassis.events_api import SERVICE
from amends_chassis.service import Runtime, running
from amends_embedded.authority import Authority, spiffe
from amends_events import INBOX, OUTBOX, Topic, partition, with_event
from amends_testkit.service import refusal_of
from amends_testkit.waiting import eventually
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from pydantic import SecretStr

from amends.events.v1 import events_service_pb2 as pb
from amends.events.v1.events_service_pb2_grpc import EventsServiceStub
from shop.shipping.events.v1.shipping_pb2 import ParcelBooked

from .echo import settings

TABLES = (
    OUTBOX
    + INBOX
    + "CREATE TABLE IF NOT EXISTS paid (order_id text, version bigint); CREATE TABLE IF NOT EXISTS seen (order_id text)"
)
PAY = with_event("INSERT INTO paid VALUES ($1, 1) RETURNING version", 1)
TOPIC = "shop.shipping.events.v1"
WHY = {"actor": "ada", "reason": "the handler is mended"}


class Shop:
    """Pays, and sees what was paid unless the order is poison."""

    def __init__(self, repeatable: bool = False) -> None:
        self.name = f"seeing-{uuid4().hex[:8]}"
        """Events of other tests are in the topic too: each test has a consumer and orders of its own."""
        self.poison = {self.own("bad")}
        self.repeatable = repeatable
        self.began = datetime.now(UTC)

    async def assemble(self, runtime: Runtime) -> None:
        await runtime.database.pool.execute(TABLES)
        self.pool = runtime.database.pool
        self.outbox = runtime.publishes("/shop/shipping", ParcelBooked)
        runtime.consumes(self.name, {ParcelBooked: self.see}, repeatable=self.repeatable)

    def own(self, order: str) -> str:
        """Return the id of an order of this test."""
        return f"{self.name}-{order}"

    async def pay(self, *orders: str) -> None:
        for order_id in map(self.own, orders):
            await self.pool.execute(PAY, order_id, *self.outbox.row(ParcelBooked(order_id=order_id)).values)

    async def see(self, connection, event, message: ParcelBooked) -> None:
        if message.order_id in self.poison:
            raise RuntimeError("poison")
        await connection.execute("INSERT INTO seen VALUES ($1)", message.order_id)

    async def seen(self, order: str) -> int:
        return await self.pool.fetchval("SELECT count(*) FROM seen WHERE order_id = $1", self.own(order))


@pytest.fixture(autouse=True)
def _hurried(monkeypatch):
    monkeypatch.setattr(partition, "BACKOFF", SimpleNamespace(pause=lambda failures: timedelta(milliseconds=2)))
    monkeypatch.setattr(partition, "LOOK_EVERY", timedelta(milliseconds=20))


@asynccontextmanager
async def served(shop: Shop, database_url, nats, **changed):
    broker = None if nats is None else SecretStr(nats.url)
    configured = settings(database_url=SecretStr(database_url), broker=broker, **changed)
    async with running(configured, shop.assemble) as runtime, dial(runtime.address) as channel:
        yield EventsServiceStub(channel)


async def refused(call) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return refusal_of(failed.value)


async def until_parked(api, shop, count=1):
    async def look():
        return len((await api.ListParked(pb.ListParkedRequest(consumer=shop.name))).events) == count

    await eventually(look)
    return (await api.ListParked(pb.ListParkedRequest(consumer=shop.name))).events


async def test_a_parked_event_is_shown_decided_and_the_decision_is_kept(database_url, nats):
    shop = Shop()
    async with served(shop, database_url, nats) as api:
        await shop.pay("bad", "bad", "good")
        first, behind = await until_parked(api, shop, 2)
        assert (first.reason, behind.reason) == (pb.PARKED_REASON_FAILED, pb.PARKED_REASON_AFTER)
        shown = await api.GetParked(pb.GetParkedRequest(name=first.name))
        assert (shown.event.subject, shown.event.data["orderId"], shown.behind) == (shop.own("bad"), shop.own("bad"), 1)
        assert shown.event.datacontenttype == "application/json"
        lag = await api.ListLag(pb.ListLagRequest(consumer=shop.name, topic=TOPIC))
        (blocked,) = [one for one in lag.partitions if one.blocked_keys]
        assert (blocked.blocked_keys, blocked.state) == (1, pb.READING_STATE_READING)

        def decide(name, **said):
            return api.DecideParked(pb.DecideParkedRequest(name=name, decision=pb.PARKED_DECISION_RETRY, **said))

        assert await refused(decide(first.name)) == ("INVALID_ARGUMENT", "DECISION_INVALID")
        assert (await refused(decide(behind.name, **WHY)))[1] == "PARKED_BEHIND_ANOTHER"
        assert (await refused(decide("nobody/x/1/1", **WHY)))[1] == "PARKED_UNKNOWN"
        shop.poison.clear()
        assert (await decide(first.name, **WHY)).parked.decided_by == "ada"
        await until_parked(api, shop, 0)
        assert (await api.GetParked(pb.GetParkedRequest(name=first.name))).parked.HasField("released_at")
        assert (await refused(decide(first.name, **WHY)))[1] == "RELEASED_ALREADY"
        (kept,) = (await api.ListDecisions(pb.ListDecisionsRequest())).decisions
        assert (kept.decision, kept.subject, kept.actor, kept.reason) == ("retry", first.name, *WHY.values())
        assert [await shop.seen("bad"), await shop.seen("good")] == [2, 1]


async def test_topics_show_what_the_contract_and_the_broker_say(database_url, nats):
    shop = Shop()
    async with served(shop, database_url, nats) as api:

        async def there():
            (found,) = (await api.ListTopics(pb.ListTopicsRequest())).topics
            return found if not found.problem else None

        found = await eventually(there)
        assert (found.name, found.partitions, list(found.consumers)) == (TOPIC, 8, [shop.name])
        assert list(found.published) == [f"{TOPIC}.ParcelBooked"]


async def test_a_replay_says_what_it_would_do_and_is_forced_only_on_handlers_that_allow_it(database_url, nats):
    shop = Shop(repeatable=True)
    async with served(shop, database_url, nats) as api:
        await shop.pay("o-1", "o-2")
        await eventually(lambda: _is(shop.seen, "o-2", 1))
        await eventually(lambda: _is(shop.seen, "o-1", 1))
        asked = pb.ReplayRequest(consumer=shop.name, topic=TOPIC, key=shop.own("o-1"), dry_run=True)
        asked.since.FromDatetime(shop.began)
        plan = await api.Replay(asked)
        assert (plan.done, len(plan.moves)) == (False, 1)
        assert plan.events >= 1
        asked.dry_run, asked.force = False, True
        assert (await refused(api.Replay(asked)))[1] == "DECISION_INVALID"
        asked.MergeFrom(pb.ReplayRequest(**WHY))
        assert (await api.Replay(asked)).done
        await eventually(lambda: _is(shop.seen, "o-1", 2))
        assert await shop.seen("o-2") == 1
        asked.consumer = "nobody"
        assert (await refused(api.Replay(asked)))[1] == "CONSUMER_UNKNOWN"


async def test_a_replay_of_handlers_with_effects_elsewhere_cannot_be_forced(database_url, nats):
    shop = Shop()
    async with served(shop, database_url, nats) as api:
        asked = pb.ReplayRequest(consumer=shop.name, topic=TOPIC, position=1, force=True, dry_run=True)
        await eventually(lambda: _equals(api, shop))
        assert await refused(api.Replay(asked)) == ("FAILED_PRECONDITION", "NOT_REPEATABLE")


async def test_what_waits_in_the_outbox_is_listed_in_pages_and_can_be_left_out(database_url):
    shop = Shop()
    async with served(shop, database_url, None) as api:
        await shop.pay("o-1", "o-2", "o-3")
        page = await api.ListOutbox(pb.ListOutboxRequest(page_size=2))
        rest = await api.ListOutbox(pb.ListOutboxRequest(page_size=2, page_token=page.next_page_token))
        assert [one.key for one in (*page.events, *rest.events)] == list(map(shop.own, ("o-1", "o-2", "o-3")))
        assert (page.total, rest.next_page_token) == (3, "")
        skipped = await api.SkipOutbox(pb.SkipOutboxRequest(event_id=page.events[1].event_id, **WHY))
        assert skipped.event == page.events[1]
        assert [one.key for one in (await api.ListOutbox(pb.ListOutboxRequest())).events] == [
            shop.own("o-1"),
            shop.own("o-3"),
        ]
        assert (await refused(api.ListLag(pb.ListLagRequest())))[1] == "BROKER_AWAY"
        assert (await refused(api.ListOutbox(pb.ListOutboxRequest(page_token="x"))))[1] == "PAGE_TOKEN_INVALID"
        (topic,) = (await api.ListTopics(pb.ListTopicsRequest())).topics
        assert (topic.waiting, topic.problem) == (2, "the service has no broker: AMENDS_BROKER is not set")


async def test_what_was_published_is_published_again_where_it_is_kept(database_url, nats):
    shop = Shop()
    since = Timestamp()
    since.FromDatetime(shop.began)
    async with served(shop, database_url, nats, outbox_keep=timedelta(hours=1)) as api:
        await shop.pay("o-1")
        await eventually(lambda: _is(shop.seen, "o-1", 1))
        asked = pb.RepublishRequest(topic=TOPIC, since=since, **WHY)

        async def published_again():
            return (await api.Republish(asked)).events == 1

        await eventually(published_again)
        asked.topic = "shop.orders.events.v1"
        assert (await refused(api.Republish(asked)))[1] == "TOPIC_UNKNOWN"
    async with served(shop, database_url, nats) as api:
        asked.topic = TOPIC
        assert (await refused(api.Republish(asked)))[1] == "NOT_KEPT"
        assert await shop.seen("o-1") == 1


async def test_only_who_may_decides_and_the_certificate_says_who_it_was(database_url, tmp_path):
    authority = Authority.make()
    for name in ("payments", "on-call", "stranger"):
        authority.certify(tmp_path / name, spiffe("shop", name))
    rules = {"rules": [{"identities": [spiffe("shop", "on-call")], "methods": [f"/{SERVICE}/*"]}]}
    (tmp_path / "access.json").write_text(json.dumps(rules))
    shop = Shop()
    configured = settings(
        database_url=SecretStr(database_url),
        tls_dir=tmp_path / "payments",
        access=tmp_path / "access.json",
    )
    async with running(configured, shop.assemble) as runtime:
        await shop.pay("o-1")
        async with dial(runtime.address, certificates=Certificates(tmp_path / "stranger")) as channel:
            answer = await refused(EventsServiceStub(channel).ListOutbox(pb.ListOutboxRequest()))
            assert answer == ("PERMISSION_DENIED", "NO_ACCESS")
        async with dial(runtime.address, certificates=Certificates(tmp_path / "on-call")) as channel:
            api = EventsServiceStub(channel)
            (event,) = (await api.ListOutbox(pb.ListOutboxRequest())).events
            await api.SkipOutbox(pb.SkipOutboxRequest(event_id=event.event_id, **WHY))
            (kept,) = (await api.ListDecisions(pb.ListDecisionsRequest())).decisions
            assert (kept.actor, kept.identity) == ("ada", spiffe("shop", "on-call"))


async def test_reflection_shows_the_service_and_one_without_events_does_not_have_it(database_url):
    async def nothing(runtime: Runtime) -> None:
        """A service without events."""

    async def names(assemble) -> set[str]:
        configured = settings(database_url=SecretStr(database_url))
        async with running(configured, assemble) as runtime, dial(runtime.address) as channel:
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            asked = reflection_pb2.ServerReflectionRequest(list_services="")
            async for answer in stub.ServerReflectionInfo(iter([asked])):
                return {one.name for one in answer.list_services_response.service}
        raise AssertionError("no answer")

    assert SERVICE in await names(Shop().assemble)
    assert SERVICE not in await names(nothing)


async def test_a_service_that_only_publishes_has_nothing_to_decide(database_url):
    async def assemble(runtime: Runtime) -> None:
        await runtime.database.pool.execute(OUTBOX)
        runtime.publishes("/shop/shipping", ParcelBooked)

    configured = settings(database_url=SecretStr(database_url))
    async with running(configured, assemble) as runtime, dial(runtime.address) as channel:
        api = EventsServiceStub(channel)
        assert not (await api.ListLag(pb.ListLagRequest())).partitions
        assert not (await api.ListParked(pb.ListParkedRequest())).events
        assert (await refused(api.GetParked(pb.GetParkedRequest(name="x/y/0/1"))))[1] == "PARKED_UNKNOWN"
        asked = pb.ReplayRequest(consumer="x", topic=TOPIC, position=1, dry_run=True)
        assert (await refused(api.Replay(asked)))[1] == "CONSUMER_UNKNOWN"


TEXTS = (
    "\0",
    "a\0b",
    "a" * 20_000,
    "x/y/9999999999/1",
    "x/y/1/99999999999999999999",
    "-1",
    "9" * 30,
    "'; --",
    "\x1b[2J",
)
NUMBERS = (-1, 2**31 - 1, -(2**31))


def hostile(method):
    """Requests of a method, each with one field that says something evil and the others something plausible."""
    kind = GetMessageClass(method.input_type)
    plausible = {"reason": "why", "actor": "ada", "position": 1, "decision": 1, "name": "x/y/1/1", "topic": TOPIC}
    sound = kind(**{name: value for name, value in plausible.items() if name in kind.DESCRIPTOR.fields_by_name})
    for field in kind.DESCRIPTOR.fields:
        values = TEXTS if field.type == field.TYPE_STRING else NUMBERS
        if field.message_type is not None:
            values = (Timestamp(seconds=2**62), Timestamp(seconds=-(2**62)), Timestamp(seconds=1, nanos=-1))
        if field.type in (field.TYPE_UINT32, field.TYPE_BOOL):
            values = (1, 2**32 - 1) if field.type == field.TYPE_UINT32 else (True,)
        for value in values:
            request = kind()
            request.CopyFrom(sound)
            if field.message_type is not None:
                getattr(request, field.name).CopyFrom(value)
            else:
                setattr(request, field.name, value)
            yield request


async def test_whatever_a_request_says_the_answer_is_in_words_of_the_contract(database_url):
    wrong = []
    async with served(Shop(), database_url, None) as api:
        for method in pb.DESCRIPTOR.services_by_name["EventsService"].methods:
            for request in hostile(method):
                try:
                    await getattr(api, method.name)(request)
                except grpc.aio.AioRpcError as error:
                    code, reason = refusal_of(error)
                    if code in ("INTERNAL", "UNKNOWN", "UNIMPLEMENTED") or not reason:
                        wrong.append((method.name, str(request), code, reason))
    assert wrong == []


async def _is(look, argument, wanted) -> bool:
    return await look(argument) == wanted


async def _equals(api, shop) -> bool:
    return len((await api.ListLag(pb.ListLagRequest(consumer=shop.name))).partitions) == Topic(TOPIC, 8).partitions
