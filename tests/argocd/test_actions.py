"""What Argo CD offers to do with our resources, and what it then changes."""

import re
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import argocd_cm
import pytest

from .conftest import OBJECTS, load

DECISIONS = {"retry", "skip", "compensate", "amend", "park"}


def changed(run, name: str, action: str, **parameters: str) -> dict[str, Any]:
    """The object after an action."""
    kind = name.partition("/")[0]
    after: dict[str, Any] = run(argocd_cm.actions(kind)[action], load(name), parameters)
    return after


def offered(run, name: str) -> set[str]:
    kind = name.partition("/")[0]
    return {
        action
        for action, its in run(argocd_cm.script(kind, "actions/discovery"), load(name)).items()
        if not its["disabled"]
    }


@pytest.mark.parametrize(
    ("name", "actions"),
    [
        ("Saga/healthy_accepted", {"reconcile", "suspend"}),
        ("Saga/progressing_noStatus", {"reconcile", "suspend"}),
        ("Participant/suspended_bySpec", {"resume"}),
        ("RetryPolicy/degraded_selectedTwice", {"reconcile", "suspend"}),
        ("SagaRun/progressing_noStatus", {"reconcile", "suspend"}),
        ("SagaRun/progressing_running", {"reconcile", "suspend", "compensate"}),
        ("SagaRun/progressing_compensating", {"reconcile", "suspend"}),
        ("SagaRun/healthy_completed", set()),
        ("SagaRun/degraded_compensated", set()),
        ("SagaRun/suspended_notStarted", {"resume"}),
        ("SagaRun/degraded_parked", {"reconcile", "suspend", "retry", "skip"}),
        ("SagaRun/degraded_parkedAndDecided", {"reconcile", "suspend"}),
        ("SagaRun/degraded_stepWaiting", {"reconcile", "suspend", "retry", "park", "compensate"}),
    ],
)
def test_what_can_be_done_now_is_offered(run, name: str, actions: set[str]) -> None:
    assert offered(run, name) == actions


@pytest.mark.parametrize("name", OBJECTS)
def test_what_is_listed_has_a_script_and_every_script_is_listed(run, name: str) -> None:
    kind = name.partition("/")[0]
    assert set(run(argocd_cm.script(kind, "actions/discovery"), load(name))) == set(argocd_cm.actions(kind))


@pytest.mark.parametrize("kind", argocd_cm.SCRIPTS)
def test_suspending_sets_the_field_and_resuming_takes_it_away(run, kind: str) -> None:
    assert changed(run, f"{kind}/progressing_noStatus", "suspend")["spec"]["suspend"] is True
    name = f"{kind}/{'suspended_notStarted' if kind == 'SagaRun' else 'suspended_bySpec'}"
    without = deepcopy(load(name)["spec"])
    assert without.pop("suspend") is True
    assert changed(run, name, "resume")["spec"] == without


@pytest.mark.parametrize("kind", argocd_cm.SCRIPTS)
def test_reconciling_asks_with_the_time(run, kind: str) -> None:
    asked = changed(run, f"{kind}/progressing_noStatus", "reconcile")["metadata"]["annotations"]
    at = datetime.strptime(asked["amends.dev/reconcile-at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - at).total_seconds()) < 60


@pytest.mark.parametrize("decision", sorted(DECISIONS))
def test_a_decision_carries_who_why_and_what_is_known(run, decision: str) -> None:
    beside, said = ("amendment", "refund") if decision == "amend" else ("result", '{"paymentId": "p-1"}')
    given = {"reason": "dispute closed", "actor": "ada", "effect": "none", beside: said}
    after = changed(run, "SagaRun/degraded_parked", decision, **given)
    assert after["metadata"]["annotations"] == {
        f"amends.dev/{decision}": "dispute closed",
        "amends.dev/actor": "ada",
        "amends.dev/effect": "none",
        f"amends.dev/{beside}": said,
    }
    assert after["spec"] == load("SagaRun/degraded_parked")["spec"]


@pytest.mark.parametrize("decision", sorted(DECISIONS))
def test_a_decision_of_the_web_pages_says_where_it_came_from(run, decision: str) -> None:
    annotations = changed(run, "SagaRun/degraded_parked", decision)["metadata"]["annotations"]
    assert annotations == {
        f"amends.dev/{decision}": "decided in Argo CD",
        "amends.dev/actor": "somebody in Argo CD",
    }


def test_the_operator_reads_what_the_actions_write() -> None:
    from amends_operator.runs import decisions

    known = {f"amends.dev/{name}" for name in (*decisions.ACTIONS, *decisions._BESIDE)}
    for decision in DECISIONS:
        assert set(re.findall(r'"(amends\.dev/[a-z]+)"', argocd_cm.actions("SagaRun")[decision])) <= known
