"""Whatever the API server, the network or the operator's death do: one run for each SagaRun, and a true status."""

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web
from amends_embedded import Child
from amends_testkit.kube_proxy import KubeProxy, Passing, refusal
from amends_testkit.kubernetes import Kubernetes
from amends_testkit.waiting import eventually

from amends.saga.v1 import definition_service_pb2 as definitions
from amends.saga.v1 import run_pb2
from shop.payments.v1 import payments_pb2

from .conftest import Namespace, Platform, a_namespace

PATIENCE = timedelta(seconds=40)


async def once(namespace, name: str, uid: str):
    """The run of a SagaRun; there is exactly one."""
    runs = [run for run in await namespace.platform.runs(namespace.name) if run.idempotency_key == f"sagarun/{uid}"]
    assert len(runs) == 1, f"{name} has {len(runs)} runs"
    return runs[0]


async def completes(namespace, name: str, phase: str = "Completed"):
    body = await namespace.until("sagarun", name, phase, timeout=PATIENCE)
    run = await once(namespace, name, body["metadata"]["uid"])
    assert run.run_id == body["status"]["runId"]
    return body


@dataclass(slots=True)
class ShortLives:
    """Operators one after the other, each killed as soon as the server has answered its first write to a path.

    What else such an operator has under way by then never arrives, so one life is one write whatever the timing.
    """

    namespace: Namespace
    proxy: KubeProxy
    part: str = ""
    """Of the path of the writes that count; the others pass."""
    lives: int = 0
    _written: int = 0
    _started: asyncio.Queue[Child] = field(default_factory=asyncio.Queue)

    def __post_init__(self) -> None:
        self.proxy.faults.refuse = self._refuse
        self.proxy.faults.answered = self._kill

    async def live(self, enough: Callable[[], Awaitable[bool]] | None = None) -> None:
        """Run one operator until it dies, or until there is `enough` without another write."""
        self.lives += 1
        operator = await self.namespace.start(server=self.proxy.url)
        self._started.put_nowait(operator)

        async def over() -> bool:
            return not operator.alive or (enough is not None and await enough())

        await eventually(over, timeout=PATIENCE)

    def end(self) -> None:
        """Stop making faults, so that the next operator is not stopped."""
        self.proxy.faults.refuse = lambda passing: None
        self.proxy.faults.answered = None

    def _counts(self, passing: Passing) -> bool:
        return passing.writes and self.part in passing.path

    def _refuse(self, passing: Passing) -> web.Response | None:
        if not self._counts(passing):
            return None
        if self._written == self.lives:
            return refusal(500, "Killed")
        self._written += 1
        return None

    async def _kill(self, passing: Passing, status: int) -> None:
        if self._counts(passing):
            (await self._started.get()).kill()


async def test_an_operator_that_is_killed_after_each_write_converges(faulty, proxy: KubeProxy) -> None:
    """Every life of the operator ends with its first write about the run; the next one goes on from what it finds."""
    operators = ShortLives(faulty, proxy, "killed")
    decided = False

    async def over() -> bool:
        body = await faulty.get("sagarun", "killed")
        return body.get("status", {}).get("phase") == "Compensated" and not body["metadata"].get("finalizers")

    await faulty.apply(faulty.run("parked", "killed"))
    while not await over():
        assert operators.lives < 15
        await operators.live()
        parked = (await faulty.get("sagarun", "killed")).get("status", {}).get("phase") == "Parked"
        if parked and not decided:
            decided = True
            close = payments_pb2.CloseDisputeRequest(order_id=f"{faulty.name}-killed")
            await faulty.platform.shop.payments.CloseDispute(close, timeout=20)
            await faulty.kubectl("annotate", "sagarun", "killed", "amends.dev/retry=closed", "amends.dev/actor=grace")
    assert operators.lives >= 5  # finalizer, status, annotations off, status, finalizer off
    operators.end()
    run = await once(faulty, "killed", (await faulty.get("sagarun", "killed"))["metadata"]["uid"])
    assert run.state == run_pb2.RUN_STATE_COMPENSATED
    assert [event.actor for event in await faulty.platform.timeline(run.run_id) if event.actor] == ["grace"]
    settled = (await faulty.get("sagarun", "killed"))["status"]["lastResolution"]
    assert (settled["action"], settled["accepted"], settled["actor"]) == ("retry", True, "grace")


async def test_an_operator_that_is_killed_after_each_write_brings_all_definitions_into_force(
    cluster: Kubernetes, platform: Platform, proxy: KubeProxy, tmp_path: Path
) -> None:
    """Statuses, events and the compiled policies of a whole installation, one write for each life of the operator."""
    async with a_namespace(cluster, platform, tmp_path, "restarted") as namespace:
        operators = ShortLives(namespace, proxy)

        async def ready() -> bool:
            listed = json.loads(await namespace.kubectl("get", "sagas,participants,retrypolicies", "-o", "json"))
            config_map = await namespace.kubectl("get", "configmap", "amends-retry-policies", "--ignore-not-found")
            phases = [item.get("status", {}).get("phase") for item in listed["items"]]
            return phases == ["Accepted"] * 6 and bool(config_map)

        folder = ("shop/participants.yaml", "shop/retry-policies.yaml", "shop/saga.yaml")
        await namespace.apply(*(document for path in folder for document in namespace.example(path)))
        while not await ready():
            assert operators.lives < 40
            await operators.live(enough=ready)
        assert operators.lives >= 7  # six statuses and the compiled policies
        operators.end()
        await namespace.start(server=proxy.url)
        await namespace.apply(namespace.run("completed", "after-all"))
        await completes(namespace, "after-all")
        compiled = json.loads((await namespace.get("configmap", "amends-retry-policies"))["data"]["policies.json"])
        assert [entry["name"] for entry in compiled["policies"]] == ["restarted/charge", "restarted/default"]


async def test_an_operator_that_is_killed_between_the_start_and_its_first_write_starts_nothing_twice(
    faulty, proxy: KubeProxy
) -> None:
    def refuse(passing: Passing):
        if passing.writes and "/sagaruns/unwritten" in passing.path:
            operator.kill()
            return refusal(500, "Killed")
        return None

    proxy.faults.refuse = refuse
    operator = await faulty.start(server=proxy.url)
    await faulty.apply(faulty.run("completed", "unwritten"))
    await eventually(lambda: not operator.alive, timeout=PATIENCE)
    uid = (await faulty.get("sagarun", "unwritten"))["metadata"]["uid"]
    assert (await once(faulty, "unwritten", uid)).state == run_pb2.RUN_STATE_COMPLETED
    proxy.faults.refuse = lambda passing: None
    await faulty.start(server=proxy.url)
    await completes(faulty, "unwritten")


async def test_a_watch_that_loses_every_event_is_made_good_by_the_next_list(faulty, proxy: KubeProxy) -> None:
    proxy.faults.events = lambda passing, event: ()
    await faulty.start(server=proxy.url, relist="1s")
    await faulty.apply(faulty.run("completed", "unseen"))
    body = await completes(faulty, "unseen")
    assert body["status"]["progress"] == "3/3"
    await faulty.kubectl("delete", "sagarun", "unseen", "--timeout=20s")


async def test_repeated_and_reordered_events_start_one_run(faulty, proxy: KubeProxy) -> None:
    held: list[dict] = []

    def shuffle(passing: Passing, event: dict):
        if "sagaruns" not in passing.path or event["type"] == "BOOKMARK":
            return (event,)
        held.append(event)
        latest = held[-6:]
        return (event, *reversed(latest), *latest)  # the newest first, then old ones again, both ways round

    proxy.faults.events = shuffle
    await faulty.start(server=proxy.url)
    names = [f"shuffled-{number}" for number in range(3)]
    for name in names:
        await faulty.apply(faulty.run("completed", name))
    for name in names:
        assert (await completes(faulty, name))["status"]["progress"] == "3/3"


async def test_a_stale_list_after_a_restart_starts_and_undoes_nothing(faulty, proxy: KubeProxy) -> None:
    operator = await faulty.start(server=proxy.url)
    path = f"/namespaces/{faulty.name}/"
    stale: dict[str, dict] = {}

    def remember(passing: Passing, body: dict) -> dict:
        if passing.path.partition("?")[0].rpartition(path)[2] in ("sagaruns", "sagas"):
            stale.setdefault(passing.path.partition("?")[0], body)
        return body

    proxy.faults.lists = remember
    await operator.terminate()
    operator = await faulty.start(server=proxy.url)
    await eventually(lambda: len(stale) == 2)
    await faulty.apply(faulty.run("slow", "kept"))
    running = await faulty.until("sagarun", "kept", "Running")
    (saga,) = faulty.example("shop/saga.yaml")
    saga["metadata"]["name"] = "younger"
    await faulty.apply(saga)
    await faulty.until("saga", "younger", "Accepted")
    operator.kill()
    # From now on lists are those of before: they know neither the run nor the saga.
    proxy.faults.lists = lambda passing, body: stale.get(passing.path.partition("?")[0], body)
    await faulty.start(server=proxy.url, relist="1s")
    listed = len(proxy.passed)
    await eventually(lambda: sum(call.lists for call, _ in proxy.passed[listed:]) > 8, timeout=PATIENCE)
    sagas = await faulty.platform.shop.definitions.ListSagas(
        definitions.ListSagasRequest(namespace=faulty.name), timeout=10
    )
    assert "younger" in [info.name for info in sagas.sagas]
    proxy.faults.lists = lambda passing, body: body
    ended = await completes(faulty, "kept")
    assert ended["status"]["runId"] == running["status"]["runId"]


async def test_a_watch_that_is_gone_or_reset_is_opened_again(faulty, proxy: KubeProxy) -> None:
    await faulty.start(server=proxy.url)
    await faulty.apply(faulty.run("completed", "before-gone"))
    await completes(faulty, "before-gone")
    gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}
    proxy.faults.events = lambda passing, event: (gone,)
    await faulty.apply(faulty.run("completed", "while-gone"))
    await completes(faulty, "while-gone")
    proxy.faults.events = lambda passing, event: (event,)
    proxy.cut()
    await faulty.apply(faulty.run("completed", "after-reset"))
    assert (await completes(faulty, "after-reset"))["status"]["progress"] == "3/3"


async def test_a_silent_watch_is_opened_again_and_one_that_stays_dead_turns_health_red(
    faulty, proxy: KubeProxy
) -> None:
    operator = await faulty.start(server=proxy.url, watch_silence="2s")
    await faulty.apply(faulty.run("completed", "before-silence"))
    await completes(faulty, "before-silence")
    assert await faulty.probe(operator, "/healthz") == 200
    assert await faulty.probe(operator, "/readyz") == 200
    proxy.faults.silent = True
    await faulty.apply(faulty.run("completed", "in-silence"))
    reconnections = len(proxy.watches)
    await eventually(lambda: len(proxy.watches) > reconnections, timeout=PATIENCE)
    proxy.faults.silent = False
    await completes(faulty, "in-silence")
    proxy.faults.unanswered = True

    async def red():
        return await faulty.probe(operator, "/healthz") == 503

    await eventually(red, timeout=PATIENCE)
    proxy.faults.unanswered = False

    async def green():
        return await faulty.probe(operator, "/healthz") == 200

    await eventually(green, timeout=PATIENCE)


async def test_a_run_that_ends_quickly_costs_at_most_two_writes(faulty, proxy: KubeProxy) -> None:
    await faulty.start(server=proxy.url, quick="5s")
    names = [f"cheap-{number}" for number in range(5)]
    await faulty.apply(*(faulty.run("completed", name) for name in names), faulty.run("declined", "cheap-declined"))
    for name in names:
        await completes(faulty, name)
    await completes(faulty, "cheap-declined", "Compensated")
    assert [len(proxy.writes(f"/sagaruns/{name}")) for name in names] == [1] * 5
    await eventually(lambda: len(proxy.writes("/events")) == 1)
    assert len(proxy.writes("/sagaruns/cheap-declined")) == 1


async def test_a_conflict_at_every_first_write_and_a_burst_of_errors_are_got_over(faulty, proxy: KubeProxy) -> None:
    seen: set[tuple[str, str]] = set()
    burst = itertools.count()

    def refuse(passing: Passing):
        if not passing.writes or "/sagaruns/" not in passing.path:
            return None
        if (passing.method, passing.path) not in seen:
            seen.add((passing.method, passing.path))
            return refusal(409, "Conflict")
        return refusal(500, "InternalError") if next(burst) < 4 else None

    proxy.faults.refuse = refuse
    await faulty.start(server=proxy.url)
    await faulty.apply(faulty.run("slow", "conflicting"))
    await completes(faulty, "conflicting")
    assert [status for _, status in proxy.writes("conflicting")].count(409) >= 2


async def test_too_many_requests_are_tried_again_when_the_server_has_said(faulty, proxy: KubeProxy) -> None:
    loop = asyncio.get_running_loop()
    times: list[float] = []

    def refuse(passing: Passing):
        if passing.writes and "/sagaruns/patient" in passing.path:
            times.append(loop.time())
            return refusal(429, "TooManyRequests", **{"Retry-After": "2"}) if len(times) == 1 else None
        return None

    proxy.faults.refuse = refuse
    await faulty.start(server=proxy.url)
    await faulty.apply(faulty.run("completed", "patient"))
    await completes(faulty, "patient")
    assert times[1] - times[0] >= 2


async def test_a_token_that_is_refused_for_a_while_is_read_again_until_it_is_taken(faulty, proxy: KubeProxy) -> None:
    """As while a rotated token is on its way, or an API server that starts has nobody to ask."""
    operator = await faulty.start(server=proxy.url)
    await faulty.apply(faulty.run("completed", "before-refusal"))
    await completes(faulty, "before-refusal")
    proxy.faults.refuse = lambda passing: refusal(401, "Unauthorized")
    proxy.cut()
    asked = len(proxy.passed)
    await eventually(lambda: len(proxy.passed) > asked + 8, timeout=PATIENCE)
    await faulty.apply(faulty.run("completed", "after-refusal"))
    proxy.faults.refuse = lambda passing: None
    await completes(faulty, "after-refusal")
    assert operator.alive


async def test_runs_go_on_while_the_api_server_is_away_and_statuses_catch_up(faulty, proxy: KubeProxy) -> None:
    operator = await faulty.start(server=proxy.url)
    await faulty.apply(faulty.run("slow", "through-outage"))
    running = await faulty.until("sagarun", "through-outage", "Running")
    proxy.faults.away = True
    proxy.cut()
    run_id = running["status"]["runId"]

    async def completed():
        runs = {run.run_id: run.state for run in await faulty.platform.runs(faulty.name)}
        return runs[run_id] == run_pb2.RUN_STATE_COMPLETED

    await eventually(completed, timeout=PATIENCE)
    assert operator.alive
    assert (await faulty.get("sagarun", "through-outage"))["status"]["phase"] == "Running"
    proxy.faults.away = False
    await completes(faulty, "through-outage")
    assert operator.alive


async def test_two_operators_at_once_start_one_run_for_each_resource(faulty) -> None:
    await asyncio.gather(faulty.start(), faulty.start())
    names = [f"shared-{number}" for number in range(4)]
    await faulty.apply(*(faulty.run("slow" if number % 2 else "completed", names[number]) for number in range(4)))
    ended = [await completes(faulty, name) for name in names]
    assert [body["status"]["phase"] for body in ended] == ["Completed"] * 4


@pytest.fixture
async def slower_cards(platform):
    """The card network takes so long that a charge is under way whatever a test does meanwhile."""
    platform.stack.child("payments").kill()
    await platform.stack.start_one("payments", {"AMENDS_SLOW_ANSWER": "10s"})
    yield
    platform.stack.child("payments").kill()
    await platform.stack.start_one("payments")


async def wait_for_cards(namespace) -> None:
    """One attempt to charge lasts as long as the card network takes, so the run neither goes on nor gives up."""
    await namespace.kubectl("patch", "retrypolicy", "charge", "--type=merge", "-p", '{"spec":{"timeout":"40s"}}')
    await namespace.until("retrypolicy", "charge", "Accepted")


@pytest.mark.usefixtures("slower_cards")
async def test_a_run_that_is_deleted_while_no_operator_is_there_is_compensated_by_the_next(faulty) -> None:
    operator = await faulty.start()
    await wait_for_cards(faulty)
    await faulty.apply(faulty.run("slow", "deleted-alone"))
    running = await faulty.until("sagarun", "deleted-alone", "Running")
    operator.kill()
    await faulty.kubectl("delete", "sagarun", "deleted-alone", "--wait=false")
    await faulty.start()
    await eventually(lambda: faulty.gone("sagarun", "deleted-alone"), timeout=PATIENCE)
    run_id = running["status"]["runId"]
    states = {run.run_id: run.state for run in await faulty.platform.runs(faulty.name)}
    assert states[run_id] == run_pb2.RUN_STATE_COMPENSATED
    assert "the SagaRun was deleted" in str([event.message for event in await faulty.platform.timeline(run_id)])


@pytest.mark.usefixtures("slower_cards")
async def test_a_run_that_is_deleted_before_its_finalizer_is_compensated(faulty, proxy: KubeProxy) -> None:
    def refuse(passing: Passing):
        return refusal(500, "InternalError") if passing.writes and "/sagaruns/unguarded" in passing.path else None

    proxy.faults.refuse = refuse
    await faulty.start(server=proxy.url)
    await wait_for_cards(faulty)
    await faulty.apply(faulty.run("slow", "unguarded"))
    uid = (await faulty.get("sagarun", "unguarded"))["metadata"]["uid"]

    async def started() -> bool:
        return bool([run for run in await faulty.platform.runs(faulty.name) if run.idempotency_key.endswith(uid)])

    await eventually(started, timeout=PATIENCE)
    await faulty.kubectl("delete", "sagarun", "unguarded", "--timeout=10s")

    async def undone():
        return (await once(faulty, "unguarded", uid)).state == run_pb2.RUN_STATE_COMPENSATED

    await eventually(undone, timeout=PATIENCE)
    assert await faulty.gone("sagarun", "unguarded")


async def test_an_absent_orchestrator_is_waited_for(faulty) -> None:
    stack = faulty.platform.stack
    await faulty.start()
    for replica in ("orchestrator-1", "orchestrator-2"):
        stack.child(replica).kill()
    try:
        await faulty.apply(faulty.run("completed", "patiently"))
        waiting = await faulty.until("sagarun", "patiently", "Pending")
        assert "OrchestratorAway" in str(waiting["status"]["conditions"])
    finally:
        for replica in ("orchestrator-1", "orchestrator-2"):
            await stack.start_one(replica)
    await completes(faulty, "patiently")


async def test_nobody_at_home_on_either_side_is_no_defect(faulty, proxy: KubeProxy) -> None:
    """The orchestrator is away and no status can be written: it is waited for both, without a traceback."""
    stack = faulty.platform.stack
    operator = await faulty.start(server=proxy.url)
    proxy.faults.refuse = lambda passing: refusal(500, "InternalError") if passing.writes else None
    for replica in ("orchestrator-1", "orchestrator-2"):
        stack.child(replica).kill()
    try:
        await faulty.apply(faulty.run("completed", "between-two"))
        (saga,) = faulty.example("shop/saga.yaml")
        saga["metadata"]["name"] = "between-two"
        await faulty.apply(saga)
        await eventually(lambda: len(proxy.writes("/between-two/status")) > 6, timeout=PATIENCE)
    finally:
        for replica in ("orchestrator-1", "orchestrator-2"):
            await stack.start_one(replica)
    proxy.faults.refuse = lambda passing: None
    await completes(faulty, "between-two")
    await faulty.until("saga", "between-two", "Accepted")
    assert "Traceback" not in operator.log.read_text()
