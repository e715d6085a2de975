"""What `RunActions` asks an orchestrator and writes to the API server, and what it makes of each no."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import grpc
import pytest
from amends_contracts import descriptor_set
from amends_operator.kube.client import ApiError, Client, ConflictError, NotFoundError
from amends_operator.kube.events import Events
from amends_operator.kube.objects import Body, Key, Objects, ResourceKind
from amends_operator.kube.statuses import Statuses
from amends_operator.orchestrator import AwayError, OrchestratorClient, OrchestratorRefusedError, SeenRun
from amends_operator.queue import RetryLaterError
from amends_operator.runs.actions import ACTOR, REASON, RunActions
from amends_operator.runs.decisions import Decision
from amends_operator.runs.observed import FINALIZER, Missing, Observed, OrchestratorRefusal, RunLimits
from amends_operator.runs.reconciler import RunReconciler
from amends_operator.runs.steps import (
    CarryOut,
    Delete,
    Do,
    Look,
    PutFinalizer,
    RefreshSaga,
    RemoveAnnotations,
    RemoveFinalizer,
    StartRun,
    Undo,
)
from amends_testkit.answers import ScriptedAnswer
from amends_testkit.participant import FakeParticipant

from amends.saga.v1 import run_pb2
from amends.saga.v1 import run_service_pb2 as pb

KEY = Key(ResourceKind.RUN, "shop", "order")
BODY: Body = {
    "metadata": {"name": "order", "namespace": "shop", "uid": "u-1", "resourceVersion": "7", "finalizers": ["other"]},
    "spec": {"saga": "place-order"},
}
MINUTE = timedelta(minutes=1)
LIMITS = RunLimits(timedelta(seconds=1), MINUTE, None, MINUTE, MINUTE)
SEEN = Observed(BODY, datetime(2026, 1, 1, tzinfo=UTC), LIMITS)
RUN = run_pb2.Run(run_id="r-1", state=run_pb2.RUN_STATE_RUNNING)
DECISION = Decision("d-1", "skip", "the bank said so", "ada", expected_seq=5, effect="happened", result='{"n": 1}')
REFUSED = ScriptedAnswer.refused(grpc.StatusCode.FAILED_PRECONDITION, "PAST_PIVOT", "the run goes forward")
UNKNOWN = ScriptedAnswer.refused(grpc.StatusCode.NOT_FOUND, "RUN_UNKNOWN", "there is no such run")


@dataclass
class ApiServer:
    """Takes what is written, and fails when a test says so."""

    patches: list[Any] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    fails_with: ApiError | None = None
    holds: Body | None = None
    version: int = 7

    async def patch(self, key: Key, patch: Any) -> Body:
        assert key == KEY
        if self.fails_with is not None:
            raise self.fails_with
        self.patches.append(patch["metadata"])
        return BODY

    async def delete(self, key: Key, uid: str) -> None:
        assert key == KEY
        self.deleted.append(uid)

    async def patch_status(self, key: Key, status: Any, version: str) -> Body:
        """The metadata of the object with its new status."""
        assert (key, version) == (KEY, str(self.version))
        self.version += 1
        return {**BODY["metadata"], "finalizers": [FINALIZER], "resourceVersion": str(self.version)}

    async def call(self, *_: Any) -> Body:
        """An event."""
        return {}

    async def read(self, key: Key) -> Body:
        assert key == KEY
        if self.holds is None:
            raise NotFoundError(404, "there is none")
        return self.holds


@dataclass
class Scene:
    """The actions, and both sides of them."""

    orchestrator: FakeParticipant
    server: ApiServer
    objects: Objects
    actions: RunActions
    refreshed: list[Key]

    async def ask(self, step: Any) -> Observed:
        return await self.actions.ask(KEY, SEEN, step)

    def asked(self, method: str) -> Any:
        """The one request to a method."""
        (call,) = self.orchestrator.calls(method)
        return call.request


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with await FakeParticipant.start(descriptor_set(), ["amends.saga.v1.RunService"]) as fake:
        fake.script("GetRun", ScriptedAnswer.ok(pb.GetRunResponse(run=RUN)))
        server, refreshed = ApiServer(), list[Key]()
        client = cast("Client", server)
        objects = Objects(lambda key: None)
        orchestrator = OrchestratorClient(fake.target, timeline=9)
        statuses, events = Statuses(client, objects, Events(client, "test")), Events(client, "test")
        actions = RunActions(client, objects, statuses, orchestrator, events, refreshed.append)
        yield Scene(fake, server, objects, actions, refreshed)
        await orchestrator.close()


async def test_a_run_is_looked_up_by_its_id_or_by_its_key_in_the_namespace(scene: Scene) -> None:
    seen = await scene.ask(Look("r-1", "k-1"))
    assert isinstance(seen.run, SeenRun)
    assert seen.run.run == RUN
    assert str(scene.asked("GetRun")) == str(pb.GetRunRequest(run_id="r-1", timeline=9, payloads=pb.PAYLOADS_NONE))
    await scene.ask(Look("", "k-1"))
    by_key: Any = scene.orchestrator.calls("GetRun")[1].request
    assert (by_key.run_id, by_key.namespace, by_key.idempotency_key) == ("", "shop", "k-1")


@pytest.mark.parametrize("step", [Look("r-1", "k-1"), Look("", "k-1")], ids=["by id", "by key"])
async def test_a_run_that_the_orchestrator_does_not_know_is_missing_and_any_other_no_is_none(
    scene: Scene, step: Look
) -> None:
    scene.orchestrator.script("GetRun", UNKNOWN)
    assert (await scene.ask(step)).run == Missing("RUN_UNKNOWN: there is no such run")
    scene.orchestrator.script("GetRun", REFUSED)
    with pytest.raises(OrchestratorRefusedError, match="the run goes forward"):
        await scene.ask(step)
    scene.orchestrator.script("GetRun", ScriptedAnswer.refused(grpc.StatusCode.UNAVAILABLE))
    with pytest.raises(AwayError):
        await scene.ask(step)


async def test_a_start_names_the_key_and_waits_for_a_quick_end(scene: Scene) -> None:
    scene.orchestrator.script("StartRun", ScriptedAnswer.ok(pb.StartRunResponse(run=RUN)))
    seen = await scene.ask(StartRun("place-order", "k-1", {"n": 2**60}))
    asked = scene.asked("StartRun")
    assert (asked.namespace, asked.saga, asked.idempotency_key, asked.timeline) == ("shop", "place-order", "k-1", 9)
    assert (json.loads(asked.json_text), asked.wait, asked.wait_timeout.seconds) == ({"n": 2**60}, True, 1)
    assert seen.answer is not None
    assert (seen.answer.refusal, isinstance(seen.run, SeenRun)) == (None, True)


async def test_a_start_that_is_refused_leaves_no_run(scene: Scene) -> None:
    scene.orchestrator.script("StartRun", REFUSED)
    seen = await scene.ask(StartRun("place-order", "k-1", {}))
    assert seen.run is None
    assert seen.answer is not None
    assert seen.answer.refusal == OrchestratorRefusal("PAST_PIVOT", "the run goes forward")


async def test_a_decision_resolves_what_is_parked_and_cancels_what_goes_forward(scene: Scene) -> None:
    scene.orchestrator.script("ResolveRun", ScriptedAnswer.ok(pb.ResolveRunResponse()))
    scene.orchestrator.script("CancelRun", ScriptedAnswer.ok(pb.CancelRunResponse()))
    seen = await scene.ask(CarryOut(DECISION, "r-1", cancels=False))
    resolved = scene.asked("ResolveRun")
    assert (resolved.run_id, resolved.resolution, resolved.expected_seq) == ("r-1", pb.RESOLUTION_SKIP, 5)
    assert (resolved.reason, resolved.actor, resolved.effect) == ("the bank said so", "ada", pb.EFFECT_HAPPENED)
    assert dict(resolved.result) == {"n": 1}
    assert not scene.orchestrator.calls("CancelRun")
    assert isinstance(seen.run, SeenRun), "the run is looked at again"
    assert seen.answer is not None
    assert seen.answer.refusal is None

    await scene.ask(CarryOut(DECISION, "r-1", cancels=True))
    cancelled = pb.CancelRunRequest(run_id="r-1", reason="the bank said so", actor="ada")
    assert str(scene.asked("CancelRun")) == str(cancelled)


async def test_a_deleted_run_is_cancelled_or_compensated_by_the_operator(scene: Scene) -> None:
    scene.orchestrator.script("ResolveRun", ScriptedAnswer.ok(pb.ResolveRunResponse()))
    scene.orchestrator.script("CancelRun", ScriptedAnswer.ok(pb.CancelRunResponse()))
    await scene.ask(Undo("r-1", None))
    assert str(scene.asked("CancelRun")) == str(pb.CancelRunRequest(run_id="r-1", reason=REASON, actor=ACTOR))
    assert not scene.orchestrator.calls("ResolveRun")
    await scene.ask(Undo("r-1", 5))
    resolved = scene.asked("ResolveRun")
    assert (resolved.run_id, resolved.resolution, resolved.expected_seq) == ("r-1", pb.RESOLUTION_COMPENSATE, 5)
    assert (resolved.reason, resolved.actor) == (REASON, ACTOR)


@pytest.mark.parametrize("step", [Undo("r-1", None), CarryOut(DECISION, "r-1", cancels=True)])
async def test_what_is_refused_is_kept_with_its_reason_and_the_run_is_looked_at_again(scene: Scene, step: Any) -> None:
    scene.orchestrator.script("CancelRun", REFUSED)
    seen = await scene.ask(step)
    assert seen.answer is not None
    assert seen.answer.refusal == OrchestratorRefusal("PAST_PIVOT", "the run goes forward")
    assert isinstance(seen.run, SeenRun)
    scene.orchestrator.script("CancelRun", UNKNOWN)
    lost = (await scene.ask(step)).answer
    assert lost is not None
    assert lost.refusal == OrchestratorRefusal("RUN_UNKNOWN", "there is no such run", not_found=True)


async def test_a_decision_that_makes_no_sense_is_not_sent(scene: Scene) -> None:
    decision = Decision("d-1", "skip", "r", "ada", expected_seq=5, effect="perhaps")
    seen = await scene.ask(CarryOut(decision, "r-1", cancels=False))
    assert seen.answer is not None
    assert seen.answer.refusal == OrchestratorRefusal("", "the effect must be happened or none")
    assert not scene.orchestrator.calls("ResolveRun")


@pytest.mark.parametrize(
    ("step", "finalizers", "patched"),
    [
        (PutFinalizer(), ["other"], {"finalizers": ["other", FINALIZER]}),
        (PutFinalizer(), None, {"finalizers": [FINALIZER]}),
        (RemoveFinalizer(), ["other", FINALIZER], {"finalizers": ["other"]}),
        (RemoveFinalizer(), [FINALIZER], {"finalizers": None}),
        (RemoveAnnotations(("a", "b")), None, {"annotations": {"a": None, "b": None}}),
    ],
)
async def test_metadata_is_changed_only_while_it_is_what_was_read(
    scene: Scene, step: Do, finalizers: Any, patched: Any
) -> None:
    body = {**BODY, "metadata": {**BODY["metadata"], "finalizers": finalizers}}
    assert await scene.actions.write(KEY, body, step) is False
    assert scene.server.patches == [{**patched, "resourceVersion": "7"}]
    assert scene.objects.get(KEY) is not None, "what the server answers is known at once"


async def test_an_object_that_is_gone_needs_no_finalizer_taken_off(scene: Scene) -> None:
    scene.server.fails_with = NotFoundError(404, "there is none")
    assert await scene.actions.write(KEY, BODY, RemoveFinalizer()) is False
    with pytest.raises(NotFoundError):
        await scene.actions.write(KEY, BODY, PutFinalizer())


async def test_an_object_is_deleted_by_its_uid_and_a_saga_is_looked_at_in_its_namespace(scene: Scene) -> None:
    await scene.actions.write(KEY, BODY, Delete())
    assert scene.server.deleted == ["u-1"]
    await scene.actions.write(KEY, BODY, RefreshSaga("place-order"))
    assert scene.refreshed == [Key(ResourceKind.SAGA, "shop", "place-order")]


async def test_looks_grow_rarer_while_nothing_is_new(scene: Scene) -> None:
    metadata = {**BODY["metadata"], "finalizers": [FINALIZER]}
    scene.objects.seen(ResourceKind.RUN, {**BODY, "metadata": metadata, "status": {"phase": "Running", "runId": "r-1"}})
    reconciler = RunReconciler(scene.actions, LIMITS)
    pauses = [await reconciler.reconcile(KEY) or timedelta() for _ in range(4)]
    assert pauses[0] == timedelta(milliseconds=250)
    assert sorted({*pauses}) == pauses, "each is longer than the one before"
    newer = run_pb2.Run(run_id="r-1", seq=9, state=run_pb2.RUN_STATE_RUNNING)
    scene.orchestrator.script("GetRun", ScriptedAnswer.ok(pb.GetRunResponse(run=newer)))
    assert await reconciler.reconcile(KEY) == pauses[0], "soon again after something new"
    started_again = RunReconciler(scene.actions, LIMITS)
    assert await started_again.reconcile(KEY) == pauses[1], "nothing was new, as far as it knows"


@pytest.mark.parametrize("is_gone", [False, True], ids=["deleted", "gone"])
@pytest.mark.parametrize("is_shared", [False, True], ids=["alone", "shared"])
async def test_a_deleted_object_does_not_undo_the_run_that_another_one_shows(
    scene: Scene, is_gone: bool, is_shared: bool
) -> None:
    scene.orchestrator.script("CancelRun", ScriptedAnswer.ok(pb.CancelRunResponse()))
    spec = {"saga": "place-order", "key": "order-7"}
    metadata = {**BODY["metadata"], "finalizers": [] if is_gone else [FINALIZER]}
    mine = {**BODY, "metadata": metadata, "spec": spec}
    other = {**mine, "metadata": {**metadata, "name": "restored", "uid": "u-2"}}
    if is_shared:
        scene.objects.seen(ResourceKind.RUN, other)
    if is_gone:
        scene.objects.seen(ResourceKind.RUN, mine)
        scene.objects.vanished(ResourceKind.RUN, mine)
    else:
        metadata["deletionTimestamp"] = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        scene.objects.seen(ResourceKind.RUN, {**mine, "status": {"phase": "Running", "runId": "r-1"}})
    await RunReconciler(scene.actions, LIMITS).reconcile(KEY)
    assert bool(scene.orchestrator.calls("CancelRun")) is not is_shared


@pytest.mark.parametrize("is_there", [True, False], ids=["changed", "gone"])
async def test_after_a_conflict_the_object_is_read_again(scene: Scene, is_there: bool) -> None:
    body = {**BODY, "metadata": {**BODY["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    body["metadata"]["finalizers"] = [FINALIZER]
    body["spec"] = {"saga": "place-order", "onDeletion": "Abandon"}
    scene.objects.seen(ResourceKind.RUN, body)
    newer = {**body, "metadata": {**body["metadata"], "resourceVersion": "8"}}
    scene.server.fails_with, scene.server.holds = ConflictError(409, "it changed"), newer if is_there else None
    with pytest.raises(RetryLaterError):
        await RunReconciler(scene.actions, LIMITS).reconcile(KEY)
    known = scene.objects.get(KEY)
    assert (known["metadata"]["resourceVersion"] if known else None) == ("8" if is_there else None)
