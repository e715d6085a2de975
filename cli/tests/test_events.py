"""`amends events` against a real service with a real broker: what it shows, what it decides, what it prints to copy."""

import json
import re
import shlex
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest
import typer
from amends_chassis.service import Runtime, running
from amends_chassis.settings import ServiceSettings
from amends_chassis.text import UNSAFE
from amends_cli.main import build
from amends_contracts import descriptor_set
from amends_events import INBOX, OUTBOX, Topic, open_broker, partition, with_event
from amends_testkit.answers import ScriptedAnswer
from amends_testkit.participant import FakeParticipant
from amends_testkit.waiting import eventually
from pydantic import SecretStr
from structlog.testing import capture_logs

from amends.events.v1 import events_service_pb2 as pb
from shop.inventory.events.v1.inventory_pb2 import StockReleased

TABLES = OUTBOX + INBOX + "CREATE TABLE released (order_id text, version bigint)"
RELEASE = with_event("INSERT INTO released VALUES ($1, 1) RETURNING version", 1)
TOPIC = "shop.inventory.events.v1"
NOWHERE = "127.0.0.1:1"
EVIL = "evil\x1b[2J\x9b\nerror: forged"
WHY = ("--reason", "the handler is mended", "--actor", "ada")


class Stock:
    """A service that publishes, and consumes what it publishes unless the order is poison."""

    def __init__(self) -> None:
        self.name = f"seeing-{uuid4().hex[:8]}"
        self.poison = {self.own("bad")}
        self.seen: list[str] = []

    def own(self, order: str) -> str:
        return f"{self.name}-{order}"

    async def assemble(self, runtime: Runtime) -> None:
        await runtime.database.pool.execute(TABLES)
        self.pool = runtime.database.pool
        self.outbox = runtime.publishes("/shop/inventory", StockReleased)
        runtime.consumes(self.name, {StockReleased: self.see})

    async def see(self, connection, event, message: StockReleased) -> None:
        if message.order_id in self.poison:
            raise RuntimeError("poison")
        if message.order_id.startswith(self.name):
            self.seen.append(message.order_id.removeprefix(f"{self.name}-"))

    async def release(self, *orders: str) -> None:
        for order_id in map(self.own, orders):
            await self.pool.execute(RELEASE, order_id, *self.outbox.row(StockReleased(order_id=order_id)).values)


@pytest.fixture(autouse=True)
def _hurried(monkeypatch):
    monkeypatch.setattr(partition, "BACKOFF", SimpleNamespace(pause=lambda failures: timedelta(milliseconds=2)))
    monkeypatch.setattr(partition, "LOOK_EVERY", timedelta(milliseconds=20))
    with capture_logs():  # the service's, which is in this process: they are not what the command prints
        yield


@pytest.fixture
async def stock(database_url, nats, monkeypatch):
    async with serving(Stock(), database_url, nats.url, monkeypatch) as one:
        yield one


@asynccontextmanager
async def serving(stock: Stock, database_url, broker, monkeypatch, **changed):
    settings = ServiceSettings(name="stock", database_url=SecretStr(database_url), **changed)
    settings = settings.model_copy(update={"broker": None if broker is None else SecretStr(broker)})
    async with running(settings, stock.assemble) as runtime:
        stock.address = runtime.address
        monkeypatch.setenv("AMENDS_EVENTS_ADDRESS", runtime.address)
        yield stock


async def parked(run, stock, count: int) -> list[dict]:
    async def look():
        found = json.loads((await run("events", "parked", "list", "--consumer", stock.name, "-o", "json")).out)
        return found if len(found) == count else None

    return await eventually(look)


async def seen(stock, *orders: str) -> None:
    await eventually(lambda: sorted(stock.seen) == sorted(orders))


async def test_a_parked_event_is_found_shown_and_released_with_the_line_that_is_printed(run, stock):
    await stock.release("bad", "bad", "good")
    first, _ = await parked(run, stock, 2)
    listed = await run("events", "parked", "list", "--consumer", stock.name)
    assert re.search(rf"^{first['name']} +\S+ +{stock.own('bad')} +StockReleased +failed +5 ", listed.out, re.MULTILINE)
    assert listed.out.count("after") == 1
    shown = await run("events", "parked", "show", first["name"])
    assert "RuntimeError: poison" in shown.out
    assert f'"orderId": "{stock.own("bad")}"' in shown.out
    assert "1 more of this key wait behind it" in shown.out
    (printed,) = re.findall(r"^  amends (.*retry .*)$", shown.out, re.MULTILINE)
    again = await run(*shlex.split(printed))
    assert (again.code, "is parked again, after 6 attempts: RuntimeError: poison" in again.out) == (5, True)
    stock.poison.clear()
    done = await run(*shlex.split(printed))
    assert (done.code, done.out) == (0, f"{first['name']} is handled; 1 behind it follow\n")
    await seen(stock, "bad", "bad", "good")
    known = json.loads((await run("events", "decisions", "-o", "json")).out)
    assert [(one["decision"], one["subject"], one["reason"]) for one in known] == [("retry", first["name"], "...")] * 2


async def test_all_of_a_consumer_are_left_out_at_once_and_each_needs_a_reason(run, stock):
    stock.poison |= {stock.own("worse")}
    await stock.release("bad", "worse")
    await parked(run, stock, 2)
    which = ("--all", "--consumer", stock.name)
    assert (await run("events", "parked", "skip", *which)).code == 2
    assert (await run("events", "parked", "skip", *WHY)).code == 2
    blank = await run("events", "parked", "skip", *which, "--reason", " ")
    assert (blank.code, "A decision needs a reason" in blank.err) == (1, True)
    done = await run("events", "parked", "skip", *which, *WHY)
    assert (done.code, done.out.count("is left out")) == (0, 2)
    names = await run("events", "parked", "list", "--consumer", stock.name, "-o", "name")
    assert (names.code, names.out) == (0, "")
    nothing = await run("events", "parked", "skip", *which, *WHY)
    assert (nothing.code, nothing.err) == (0, "nothing is parked\n")
    unknown = await run("events", "parked", "show", "nobody/x/0/1")
    assert (unknown.code, "`amends events parked list` shows what waits" in unknown.err) == (1, True)


async def test_lag_and_topics_of_several_services_are_one_table_and_who_does_not_answer_is_named(run, stock):
    await stock.release("good")
    await seen(stock, "good")
    lag = await run("events", "lag", "--consumer", stock.name)
    assert lag.code == 0
    assert re.search(rf"^{stock.address} +{stock.name} +{TOPIC} +\d+ +0 +reading +0 ", lag.out, re.MULTILINE)
    lines = await run("events", "lag", "--consumer", stock.name, "--partitions")
    assert len(lines.out.splitlines()) > 2
    topics = await run("events", "topics", "--address", NOWHERE, "--address", stock.address)
    assert topics.code == 3
    assert re.search(rf"^{stock.address} +{TOPIC} +\d+ +\d+ +0 +{stock.name} +-$", topics.out, re.MULTILINE)
    assert f"error: {NOWHERE} does not answer: " in topics.err


async def test_a_replay_is_tried_dry_first_and_has_no_second_effect(run, stock):
    await stock.release("good")
    await seen(stock, "good")
    dry = await run("events", "replay", stock.name, "--from", "10m", "--key", stock.own("good"), "--dry-run")
    assert (dry.code, "handles what it has not handled" in dry.out, "would read" in dry.out) == (0, True, True)
    assert (await run("events", "replay", stock.name, "--from", "beginning")).code == 2
    forced = await run("events", "replay", stock.name, "--from", "beginning", "--force", *WHY)
    assert (forced.code, "NOT_REPEATABLE" in forced.err) == (1, True)
    done = await run("events", "replay", stock.name, "--topic", TOPIC, "--from", "beginning", *WHY, "-o", "json")
    assert (done.code, json.loads(done.out)["done"]) == (0, True)
    await stock.release("better")
    await seen(stock, "good", "better")
    unknown = await run("events", "replay", "nobody", "--topic", TOPIC, "--from", "1", *WHY)
    assert (unknown.code, "`amends events lag` shows the consumers" in unknown.err) == (1, True)
    for wrong in ("yesterday", "2026-13-01"):
        assert (await run("events", "replay", stock.name, "--from", wrong, "--dry-run")).code == 2


async def test_what_waits_without_a_broker_is_listed_and_one_is_left_out(run, database_url, monkeypatch):
    async with serving(Stock(), database_url, None, monkeypatch) as stock:
        await stock.release("a", "b")
        waiting = json.loads((await run("events", "outbox", "-o", "json")).out)
        assert [one["key"] for one in waiting] == [stock.own("a"), stock.own("b")]
        skipped = await run("events", "outbox", "skip", waiting[0]["eventId"], *WHY)
        assert (skipped.code, "will not publish" in skipped.out) == (0, True)
        assert len((await run("events", "outbox")).out.splitlines()) == 2
        gone = await run("events", "outbox", "skip", waiting[0]["eventId"], *WHY)
        assert (gone.code, "OUTBOX_EVENT_UNKNOWN" in gone.err) == (1, True)
        away = await run("events", "lag")
        assert (away.code, "AMENDS_BROKER is not set" in away.err) == (3, True)
        kept = await run("events", "republish", TOPIC, "--since", "1h", *WHY)
        assert (kept.code, "NOT_KEPT" in kept.err) == (1, True)


async def test_what_is_kept_is_published_again(run, database_url, nats, monkeypatch):
    async with serving(Stock(), database_url, nats.url, monkeypatch, outbox_keep=timedelta(days=1)) as stock:
        await stock.release("good")
        await seen(stock, "good")

        async def kept():
            dry = await run("events", "republish", TOPIC, "--since", "10m", "--dry-run")
            return "would publish 1 events again, which occurred from " in dry.out

        await eventually(kept)
        done = await run("events", "republish", TOPIC, "--since", "10m", *WHY)
        assert (done.code, "publishes 1 events again" in done.out) == (0, True)
        assert stock.seen == ["good"]


async def test_topics_are_made_as_contracts_say_and_never_with_another_number(run, nats, tmp_path):
    package = f"test.t{uuid4().hex}.events.v1"
    folder = tmp_path / "protos"
    contract = folder / "orders.proto"
    options = Path(__file__).parents[2] / "protos" / "amends" / "options" / "v1" / "events.proto"
    (folder / "amends/options/v1").mkdir(parents=True)
    (folder / "amends/options/v1/events.proto").write_text(options.read_text())
    written = (
        f'syntax = "proto3"; package {package}; import "amends/options/v1/events.proto";\n'
        "option (amends.options.v1.topic) = {partitions: 3};\n"
        "message Placed { option (amends.options.v1.event) = {key: 'id'}; string id = 1; }\n"
    )
    contract.write_text(written)
    command = ("events", "ensure", "--protos", str(folder), "--broker", nats.url)
    dry = await run(*command, "--dry-run")
    assert re.search(rf"^{package} +3 +would be made$", dry.out, re.MULTILINE)
    assert re.search(rf"^{package} +3 +made$", (await run(*command)).out, re.MULTILINE)
    assert re.search(rf"^{package} +3 +was there$", (await run(*command, package)).out, re.MULTILINE)
    contract.write_text(written.replace("partitions: 3", "partitions: 4"))
    for more in ((), ("--dry-run",)):
        refused = await run(*command, *more)
        assert (refused.code, "has 3 partitions and should have 4" in refused.err) == (1, True)
    broker = open_broker(nats.url)
    assert len(await broker.ends(package)) == 3
    await broker.close()
    assert (await run(*command, "another.topic")).code == 2
    assert (await run("events", "ensure", "--protos", str(folder), "--broker", "amqp://x")).code == 2


async def test_without_contracts_the_services_say_which_topics_they_need(run, stock, nats):
    made = await run("events", "ensure", "--broker", nats.url, "-o", "json")
    assert json.loads(made.out) == [{"topic": TOPIC, "partitions": Topic(TOPIC, 8).partitions, "result": "was there"}]


async def test_services_are_found_where_make_up_left_them_and_those_without_events_are_passed_by(
    run, stock, orchestrator, monkeypatch, tmp_path
):
    monkeypatch.delenv("AMENDS_EVENTS_ADDRESS")
    wrong = await run("events", "topics")
    assert (wrong.code, "run `make up` first" in wrong.err) == (2, True)
    stateful = {"metrics": "", "database": "a"}
    processes = {
        "nats": {"address": NOWHERE, "database": ""},
        "stock": stateful | {"address": stock.address},
        "stock-2": stateful | {"address": NOWHERE},
        "orchestrator-1": {"address": orchestrator.target, "metrics": "", "database": "b"},
    }
    (tmp_path / ".amends").mkdir()
    (tmp_path / ".amends" / "state.json").write_text(json.dumps({"processes": processes}))
    found = await run("events", "topics")
    assert (found.code, found.out.splitlines()[1].split()[:2]) == (0, ["stock", TOPIC])
    named = await run("events", "topics", "--address", orchestrator.target)
    assert (named.code, "has no events" in named.err) == (1, True)
    assert (await run("events", "topics", "--service", "shop/payments")).code == 2


def test_each_command_has_a_summary_that_is_not_cut_and_arguments_by_their_names() -> None:
    group = typer.main.get_command(build(["events"])).commands["events"]
    found = dict(group.commands)
    for name in ("parked", "outbox"):
        found |= {f"{name} {inner}": command for inner, command in group.commands[name].commands.items()}
    assert len(found) == 13
    for name, command in found.items():
        assert not command.get_short_help_str(60).endswith("..."), name
        shown = command.get_help(command.make_context(name, [], resilient_parsing=True)).split("Options:")[0]
        assert "<" not in shown, name


async def test_no_text_of_others_moves_a_terminal(run):
    parked = pb.ParkedEvent(name="a/b/0/1", consumer=EVIL, key=EVIL, type=EVIL, detail=EVIL, decided_by=EVIL)
    answers = {
        "ListTopics": pb.ListTopicsResponse(topics=[pb.TopicStatus(name=EVIL, problem=EVIL, consumers=[EVIL])]),
        "ListParked": pb.ListParkedResponse(events=[parked]),
        "GetParked": pb.GetParkedResponse(parked=parked),
        "ListDecisions": pb.ListDecisionsResponse(decisions=[pb.EventDecision(actor=EVIL, reason=EVIL, effect=EVIL)]),
    }
    async with await FakeParticipant.start(descriptor_set(), ["amends.events.v1.EventsService"]) as service:
        for method, answer in answers.items():
            service.script(method, *[ScriptedAnswer.ok(answer)] * 3)
        for words in (("topics",), ("parked", "list"), ("parked", "show", "a/b/0/1"), ("decisions",)):
            for form in ("wide", "json", "yaml"):
                shown = await run("events", *words, "--address", service.target, "-o", form)
                assert shown.code == 0, shown
                assert not UNSAFE.search((shown.out + shown.err).replace("\n", "")), shown


async def test_without_a_command_the_help_is_shown(run):
    for words in (("events",), ("events", "parked")):
        shown = await run(*words)
        assert (shown.code, "Usage: amends events" in shown.out) == (2, True)


PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "mend-events.md").read_text()
COMMANDS = re.findall(r"^((?:kubectl )?amends events .*)$", "".join(PAGE.split("```")[1::2]), re.MULTILINE)


async def test_every_command_of_the_page_for_who_is_on_call_does_what_it_is_there_for(
    run, database_url, nats, monkeypatch
):
    """On a shop with a parked event, and one in the outbox that no relay takes; a skipped one is parked first."""
    async with serving(Stock(), database_url, nats.url, monkeypatch, outbox_keep=timedelta(days=14)) as stock:
        await stock.release("bad", "bad")
        first, _ = await parked(run, stock, 2)
        row = stock.outbox.row(StockReleased(order_id="o-1")).values
        await stock.pool.execute(RELEASE, "o-1", *row[:1], "another.topic", *row[2:])
        names = {
            "orders/shop.inventory.events.v1/3/17": first["name"],
            "01a22d41-603d-7db1-bceb-d43a90b463ba": str(row[0]),
            " orders ": f" {stock.name} ",
            "nats://127.0.0.1:4222": nats.url,
        }
        codes = {}
        for command in COMMANDS:
            said = command
            for shown, real in names.items():
                said = said.replace(shown, real)
            program, *words = shlex.split(said, comments=True)
            if program == "amends":
                codes[command] = (await run(*words)).code
        again, everything, skipped = (one for one in codes if " parked retry " in one or " parked skip " in one)
        assert [codes.pop(one) for one in (again, everything, skipped)] == [5, 5, 0]
        assert set(codes.values()) == {0}, codes
    assert len(codes) == len(COMMANDS) - 4  # those three, and the one of kubectl


def test_the_command_of_the_page_for_a_cluster_is_understood():
    (command,) = (one for one in COMMANDS if one.startswith("kubectl"))
    group = typer.main.get_command(build(["events"])).commands["events"]
    _, _, _, name, *words = shlex.split(command)
    group.commands[name].make_context(name, words)
