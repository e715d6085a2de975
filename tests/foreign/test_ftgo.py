"""FTGO's three sagas, over its contract as it is (plain) and over one whose methods are guarded.

They are checked, explored, and run through every branch: all goes well, and each step in turn is refused.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from amends_saga.check import CheckResult, check
from amends_saga.definition import Document
from amends_saga.explore import Bounds, explore
from amends_testkit.answers import ScriptedAnswer
from amends_testkit.participant import FakeParticipant
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.struct_pb2 import Struct

from amends.options.v1 import options_pb2
from amends.saga.v1 import run_pb2
from amends.saga.v1 import run_service_pb2 as pb

from .orchestrator import orchestrator

SAGAS = (Path(__file__).parent / "ftgo.yaml").read_text()
PARTICIPANT = """\
apiVersion: amends.dev/v1alpha1
kind: Participant
metadata: {name: %s}
spec:
  service: ftgo.%s
  target: "%s"
  callers: [default]
  methods: %s
"""
SERVICES = ("OrderService", "ConsumerService", "KitchenService", "AccountingService")
ONCE = {"CreateOrder", "CreateTicket", "Authorize", "ReverseAuthorization", "ReviseAuthorization"}
"""Methods that promise nothing; all other changes are changes of state that can be asked for twice."""
ANSWERS: dict[str, dict[str, Any]] = {
    "CreateOrder": {"order_id": 99},
    "CreateTicket": {"ticket_id": 7},
    "BeginReviseOrder": {"revised_order_total": {"amount": "61.70"}},
}
INPUTS: dict[str, dict[str, Any]] = {
    "create": {"consumer_id": "1", "restaurant_id": "2", "lines": [{"menu_item_id": "m"}], "total": {"amount": "5"}},
    "cancel": {"consumer_id": "1", "restaurant_id": "2", "order_id": "99", "order_total": {"amount": "5"}},
    "revise": {"consumer_id": "1", "restaurant_id": "2", "order_id": "99", "revision": {"quantities": {"m": 3}}},
}
"""Ids are texts here, as int64 is in JSON."""
UNDOES = {
    "CreateOrder": ("RejectOrder", {"order_id": 99}),
    "CreateTicket": ("CancelCreateTicket", {"ticket_id": 7}),
    "BeginCancelOrder": ("UndoBeginCancelOrder", {"order_id": 99}),
    "BeginCancelTicket": ("UndoBeginCancelTicket", {"restaurant_id": 2, "order_id": 99}),
    "BeginReviseOrder": ("UndoBeginReviseOrder", {"order_id": 99}),
    "BeginReviseTicket": ("UndoBeginReviseTicket", {"restaurant_id": 2, "order_id": 99}),
}
"""What undoes a method, and the request that it gets."""
REJECTED = ScriptedAnswer.refused(grpc.StatusCode.FAILED_PRECONDITION, "NOT_NOW")
DONE = {run_pb2.RUN_STATE_COMPLETED, run_pb2.RUN_STATE_COMPENSATED, run_pb2.RUN_STATE_PARKED}


@dataclass(frozen=True, slots=True)
class Variant:
    """One contract, and what its Participants say about it."""

    contract: FileDescriptorSet
    methods: dict[str, str]

    def participant(self, service: str, target: str = "localhost:1") -> str:
        """The manifest of a service."""
        return PARTICIPANT % (service.lower(), service, target, self.methods.get(service, '["*"]'))

    def check(self) -> CheckResult:
        """The sagas over this contract."""
        texts = [Document(service, self.participant(service)) for service in SERVICES]
        return check([Document("ftgo.yaml", SAGAS), *texts], descriptors=self.contract.SerializeToString())


@pytest.fixture(scope="module", params=["plain", "guarded"])
def variant(request: pytest.FixtureRequest, compiled: Callable[..., bytes]) -> Variant:
    contract = FileDescriptorSet.FromString(compiled("ftgo.proto"))
    said: dict[str, str] = {}
    for service in (service for file in contract.file for service in file.service):
        lines = []
        for method in service.method:
            if method.name == "ValidateOrder":
                lines.append("{name: ValidateOrder, idempotency: NO_SIDE_EFFECTS}")
            elif request.param == "guarded":
                lines.append(method.name)
                method.options.Extensions[options_pb2.method].guarded = True
            else:
                kind = "ONCE" if method.name in ONCE else "IDEMPOTENT"
                lines.append(f"{{name: {method.name}, idempotency: {kind}}}")
        said[service.name] = f"[{', '.join(lines)}]"
    return Variant(contract, said)


def test_the_sagas_are_accepted_and_plain_steps_are_warned_of(variant: Variant, guarded: bool) -> None:
    result = variant.check()
    assert [len(saga.plan.steps) for saga in result.sagas] == [6, 5, 5]
    found = Counter(finding.code for finding in result.findings)
    assert found == ({} if guarded else {"AM057": 3, "AM058": 12})


@pytest.mark.parametrize("number", range(3))
def test_no_invariant_breaks_in_any_interleaving(variant: Variant, guarded: bool, number: int) -> None:
    plan = variant.check().sagas[number].plan
    result = explore(plan, Bounds(owners=1, crashes=1, resolutions=0, duplicates=False))
    assert result.complete
    assert result.violations == []
    expected = {"COMPLETED", "COMPENSATED", "PARKED REJECTED"} | (set() if guarded else {"PARKED PLAIN_IN_DOUBT"})
    assert set(result.ends) == expected


@pytest.fixture
def guarded(variant: Variant) -> bool:
    return "idempotency: ONCE" not in str(variant.methods)


@dataclass(frozen=True, slots=True)
class World:
    """A running orchestrator with the sagas, and the four services."""

    contract: FileDescriptorSet
    runs: Any
    parts: dict[str, FakeParticipant]

    def script(self, refused: str = "") -> None:
        """Let all methods answer, but one; forget what was called."""
        for service in (service for file in self.contract.file for service in file.service):
            part = self.parts[service.name]
            part.received.clear()
            part.effects.clear()
            for method in service.method:
                answer = ScriptedAnswer.ok(**ANSWERS.get(method.name, {}))
                part.script(method.name, REJECTED if method.name == refused else answer)

    async def start(self, saga: str, key: str) -> run_pb2.Run:
        """Start a run and wait until it comes to rest."""
        data = Struct()
        data.update(INPUTS[saga])
        request = pb.StartRunRequest(saga=saga, namespace="default", idempotency_key=key, json=data, wait=True)
        answer = await self.runs.StartRun(request, timeout=30)
        assert answer.run.state in DONE
        run: run_pb2.Run = answer.run
        return run

    def effects(self, operation: str) -> list[tuple[str, dict[str, Any]]]:
        """The calls that had an effect, in order: methods and requests."""
        had = [
            call
            for part in self.parts.values()
            for call in part.received
            if call.operation == operation and (call.method, call.key) in part.effects
        ]
        return [
            (call.method, {field.name: value for field, value in call.request.ListFields()})
            for call in sorted(had, key=lambda call: call.at)
        ]


@asynccontextmanager
async def world(variant: Variant, url: str) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        parts = {
            service: await stack.enter_async_context(await FakeParticipant.start(variant.contract, [f"ftgo.{service}"]))
            for service in SERVICES
        }
        api = await stack.enter_async_context(orchestrator(url))
        await api.apply([variant.participant(name, part.target) for name, part in parts.items()], SAGAS.split("---\n"))
        yield World(variant.contract, api.runs, parts)


async def test_every_branch_ends_as_it_should_with_the_right_effects(variant: Variant, database_url: str) -> None:
    async with world(variant, database_url) as ftgo:
        for saga, compiled in zip(INPUTS, variant.check().sagas, strict=True):
            methods = [step.action.method for step in compiled.plan.steps]
            pivot = next(number for number, step in enumerate(compiled.plan.steps) if step.pivot)
            for refused in range(len(methods) + 1):
                ftgo.script(*methods[refused : refused + 1])
                run = await ftgo.start(saga, f"{saga}-{refused}")
                undone = [UNDOES[name] for name in reversed(methods[:refused]) if name in UNDOES]
                if refused == len(methods):
                    expected = "COMPLETED"
                elif refused > pivot:
                    expected = "PARKED"
                else:
                    expected = "COMPENSATED"
                assert run_pb2.RunState.Name(run.state) == f"RUN_STATE_{expected}", (saga, refused, run)
                done = ftgo.effects("action")
                assert [name for name, _ in done] == methods[:refused]
                for sent in (sent for name, sent in done if name == "ReviseAuthorization"):
                    assert sent["order_total"].amount == "61.70", "the order says what the revision costs"
                assert ftgo.effects("compensation") == (undone if expected == "COMPENSATED" else [])


async def test_a_lost_answer_of_a_create_is_had_again_where_it_is_guarded_and_asks_a_person_elsewhere(
    variant: Variant, guarded: bool, database_url: str
) -> None:
    async with world(variant, database_url) as ftgo:
        ftgo.script()
        ftgo.parts["KitchenService"].script(
            "CreateTicket", ScriptedAnswer.lost(ticket_id=7), ScriptedAnswer.ok(ticket_id=8)
        )
        run = await ftgo.start("create", "lost")
        assert run_pb2.RunState.Name(run.state) == ("RUN_STATE_COMPLETED" if guarded else "RUN_STATE_PARKED")
        confirmed = [fields for name, fields in ftgo.effects("action") if name == "ConfirmCreateTicket"]
        assert confirmed == ([{"ticket_id": 7}] if guarded else [])
