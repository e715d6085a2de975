"""`amends audit` names the run and the invariant for each way in which databases can contradict what was promised."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass

import pytest

from .participants_process import SERVICES
from .publishing import LAST, OF_ONE, Installation
from .test_crash_points import new_order
from .world import World

JOURNAL, PARTICIPANTS = "journal", "participants"
ME = "run_id = $1"
KEY = "idempotency_key = $1"


@dataclass(frozen=True)
class Wrong:
    """One contradiction: a statement on one side; `$1` is the run, or the key of `step` in it."""

    name: str
    invariants: set[str]
    statement: str
    step: str = ""
    declined: bool = False


WRONGS = (
    Wrong("a record is gone", {"I6"}, f"DELETE FROM journal WHERE {ME} AND seq = 3"),
    Wrong("the beginning is gone", {"I6"}, f"DELETE FROM journal WHERE {ME} AND seq = 1"),
    Wrong("the journal is gone", {"I6"}, f"DELETE FROM journal WHERE {ME}"),
    Wrong("a record cannot be read", {"I6"}, f"UPDATE journal SET record = '' WHERE {ME} AND seq = 2"),
    Wrong(
        "it ended twice",
        {"I6"},
        f"INSERT INTO journal SELECT run_id, seq + 1, fence, record FROM journal WHERE {ME} ORDER BY seq DESC LIMIT 1",
    ),
    Wrong("the row says something else", {"I6"}, "UPDATE run SET state = 5 WHERE id = $1"),
    Wrong("an ended run is due", {"I6"}, "UPDATE run SET due_at = now() WHERE id = $1"),
    Wrong("an older fence after a newer one", {"I7"}, f"UPDATE journal SET fence = 2 WHERE {ME} AND seq = 2"),
    Wrong("a fence that nobody had", {"I7"}, f"UPDATE journal SET fence = 9 WHERE {ME}"),
    Wrong(
        "nobody will drive it",
        {"I1"},
        "WITH cut AS (DELETE FROM journal WHERE run_id = $1 AND seq > 2)"
        " UPDATE run SET state = 1, ended_at = NULL WHERE id = $1",
    ),
    Wrong(
        "its owner is nobody",
        {"I1"},
        "WITH cut AS (DELETE FROM journal WHERE run_id = $1 AND seq > 2)"
        " UPDATE run SET state = 1, ended_at = NULL, owner = gen_random_uuid() WHERE id = $1",
    ),
    Wrong(
        "it was due long ago",
        {"I1"},
        "WITH cut AS (DELETE FROM journal WHERE run_id = $1 AND seq > 2)"
        " UPDATE run SET state = 1, ended_at = NULL, due_at = now() - interval '1 hour' WHERE id = $1",
    ),
    Wrong("an effect is gone", {"I5"}, f"DELETE FROM barrier WHERE {KEY}", "charge"),
    Wrong("another response", {"I5"}, f"UPDATE barrier SET response = 'x' WHERE {KEY}", "charge"),
    Wrong("an answer was never stored", {"I4", "I5"}, f"UPDATE barrier SET response = NULL WHERE {KEY}", "charge"),
    Wrong(
        "a completed step is undone",
        {"I5"},
        f"INSERT INTO barrier SELECT idempotency_key, 'compensation', 'd', '' FROM barrier WHERE {KEY}",
        "charge",
    ),
    Wrong(
        "a compensation is gone",
        {"I5"},
        f"DELETE FROM barrier WHERE {KEY} AND operation = 'compensation'",
        "reserve",
        declined=True,
    ),
    Wrong(
        "nothing stops a late copy",
        {"I5"},
        f"DELETE FROM barrier WHERE {KEY}",
        "charge",
        declined=True,
    ),
    Wrong(
        "undone without its action",
        {"I3", "I5"},
        f"DELETE FROM barrier WHERE {KEY} AND operation = 'action'",
        "reserve",
        declined=True,
    ),
    Wrong(
        "the effect of a rejected step",
        {"I5"},
        "WITH gone AS (DELETE FROM barrier WHERE idempotency_key = $1 AND operation = 'compensation')"
        " UPDATE barrier SET request_digest = 'd', response = '' WHERE idempotency_key = $1 AND operation = 'action'",
        "charge",
        declined=True,
    ),
)


async def told(world: World, *options: str, **environment: str) -> tuple[int, str]:
    """Run the command as an operator does, with the databases in the environment."""
    databases = {
        "AMENDS_DATABASE_URL": world.journal_url,
        "AMENDS_PARTICIPANTS": " ".join(f"{service}={world.participants_url}" for service in SERVICES),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "amends_cli", "audit", *options),
        env=os.environ | databases | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await process.communicate())[0].decode()
    return process.returncode or 0, said


async def ended_order(world: World, *, declined: bool = False) -> tuple[str, str]:
    """A new order and its run."""
    order_id = new_order()
    answer = await world.place("a", order_id, **({"card": "tok_declined"} if declined else {}))
    await world.ended(order_id)
    return order_id, str(answer.run.run_id)


async def forget(world: World, run_id: str) -> None:
    """Removes a run with everything it left, so that the next test finds sound books."""
    await world.journal.execute("DELETE FROM journal WHERE run_id = $1", run_id)
    await world.journal.execute("DELETE FROM run WHERE id = $1", run_id)
    keys = [await world.key(run_id, step) for step in ("reserve", "charge", "ship", "confirm")]
    await world.memory.execute("DELETE FROM barrier WHERE idempotency_key = ANY($1)", keys)


@pytest.mark.parametrize("wrong", WRONGS, ids=lambda wrong: wrong.name)
async def test_what_is_wrong_is_named_with_its_run_and_invariant(world: World, wrong: Wrong):
    order_id, run_id = await ended_order(world, declined=wrong.declined)
    try:
        if wrong.name.startswith(("nobody", "its owner", "it was due")):
            await world.processes["a"].kill()  # or it would drive the run
        side = world.memory if wrong.step else world.journal
        tag = await side.execute(wrong.statement, await world.key(run_id, wrong.step) if wrong.step else run_id)
        assert not tag.endswith(" 0"), "the statement changed something"
        report = await world.report()
        assert {named.finding.invariant for named in report.found} == wrong.invariants
        assert {(named.key, named.finding.run_id) for named in report.found} == {(order_id, run_id)}
        assert {named.finding.step for named in report.found} == {wrong.step}
    finally:
        await forget(world, run_id)
        if world.processes["a"].ended.done():
            await world.start("a")


async def test_an_effect_without_a_run_is_found(world: World):
    _, run_id = await ended_order(world)
    await world.journal.execute("DELETE FROM journal WHERE run_id = $1", run_id)
    await world.journal.execute("DELETE FROM run WHERE id = $1", run_id)
    keys = {await world.key(run_id, step) for step in ("reserve", "charge", "ship", "confirm")}
    try:
        _, other = await ended_order(world)
        await world.journal.execute("UPDATE run SET started_at = now() - interval '1 hour' WHERE id = $1", other)
        report = await world.report()
        assert {named.key for named in report.found} == keys
    finally:
        await forget(world, run_id)


async def test_runs_past_their_retention_have_no_journal_any_more_and_are_counted(world: World):
    _, run_id = await ended_order(world)
    old = f"0190b3c2{run_id[8:]}"  # in 2024
    await world.journal.execute("DELETE FROM journal WHERE run_id = $1", run_id)
    await world.journal.execute(
        "UPDATE run SET id = $2, started_at = ended_at - interval '2 years' WHERE id = $1", run_id, old
    )
    try:
        report = await world.report()
        assert report.past == 1
        assert run_id not in {named.finding.run_id for named in report.found}
    finally:
        await forget(world, run_id)
        await forget(world, old)


async def test_a_run_that_no_orchestrator_started_is_named(world: World):
    _, run_id = await ended_order(world)
    odd = "ffffffff-ffff-4fff-8fff-ffffffffffff"
    other = "jsonb_build_object('id', $2::text, 'idempotency_key', 'odd')"
    copied = f"INSERT INTO run SELECT (jsonb_populate_record(run, {other})).* FROM run WHERE id = $1"
    await world.journal.execute(copied, run_id, odd)
    try:
        report = await world.report()
        assert {(named.key, named.finding.run_id, named.finding.invariant) for named in report.found} == {
            ("odd", odd, "I6")
        }
    finally:
        await forget(world, run_id)
        await forget(world, odd)


async def test_the_command_says_that_every_invariant_holds_or_exits_with_1(world: World):
    order_id, run_id = await ended_order(world)
    code, said = await told(world)
    assert (code, said.splitlines()[-1]) == (0, "every invariant holds"), said
    try:
        await world.memory.execute("DELETE FROM barrier WHERE idempotency_key = $1", await world.key(run_id, "ship"))
        code, said = await told(world)
        assert code == 1
        assert all(word in said for word in ("I5", order_id, run_id, "ship", "1 of them"))
        code, said = await told(world, "-o", "json")
        assert code == 1
        [found] = json.loads(said)["findings"]
        assert (found["invariant"], found["runId"], found["step"]) == ("I5", run_id, "ship")
    finally:
        await forget(world, run_id)


async def test_a_participant_whose_database_was_not_given_is_said_and_not_guessed(world: World):
    await ended_order(world)
    code, said = await told(world, AMENDS_PARTICIPANTS="")
    assert code == 0
    for service in SERVICES:
        assert f"steps of {service} were not compared" in said


async def test_a_database_that_is_not_there_is_a_failure_without_its_password(world: World):
    secret = world.journal_url.partition("://")[2].partition("@")[0].partition(":")[2]
    code, said = await told(world, AMENDS_DATABASE_URL=world.journal_url.replace("/faults", "/nothing"))
    assert code == 1
    assert "the database of the orchestrator cannot be reached" in said
    assert secret not in said


async def test_a_database_that_no_orchestrator_has_used_is_named(world: World, database_url: str):
    code, said = await told(world, AMENDS_DATABASE_URL=database_url)
    assert (code, said.count("the orchestrator has never used it")) == (1, 1)


async def test_without_any_database_the_command_says_what_to_give(tmp_path, monkeypatch, world: World):
    monkeypatch.chdir(tmp_path)
    code, said = await told(world, AMENDS_DATABASE_URL="")
    assert code == 2
    assert "--database" in said


async def test_the_command_checks_runs_and_events(shop: Installation, world: World):
    await ended_order(world)
    given = {
        "AMENDS_SERVICE_DATABASES": " ".join(f"{name}={url}" for name, url in shop.urls.items()),
        "AMENDS_BROKER": shop.server.url,
    }
    code, said = await told(world, **given)
    assert (code, said.splitlines()[-1]) == (0, "every invariant holds"), said
    assert "6 events in 1 topics, 6 effects of 1 consumers" in said
    await shop.shipping.execute(f"DELETE FROM inbox WHERE event_id = {LAST}", OF_ONE)
    code, said = await told(world, **given)
    assert code == 1
    assert all(word in said for word in ("L3", "o-1", "shipping", "was passed by", "1 times a law of events is broken"))
