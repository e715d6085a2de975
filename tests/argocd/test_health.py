"""What Argo CD says of our resources: every object of the test data, judged by the scripts."""

import argocd_cm
import pytest

from .conftest import DATA, OBJECTS, load


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_has_the_health_of_its_name(run, name: str) -> None:
    kind, _, case = name.partition("/")
    obj = load(name)
    assert obj["kind"] == kind
    judged = run(argocd_cm.script(kind, "health"), obj)
    assert judged["status"] == case.partition("_")[0].capitalize()
    assert judged["message"].strip()


@pytest.mark.parametrize("kind", argocd_cm.SCRIPTS)
def test_every_kind_is_seen_in_every_health(kind: str) -> None:
    seen = {path.stem.partition("_")[0] for path in (DATA / kind).iterdir()}
    assert seen == {"healthy", "degraded", "progressing", "suspended"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Saga/degraded_refused", "AM029: AM029 line 8"),
        ("Saga/healthy_parkedRuns", "2 parked, waiting for a person"),
        ("SagaRun/degraded_parked", "the refund was refused"),
        ("SagaRun/degraded_compensated", "the card was declined"),
        ("SagaRun/healthy_skippedByPerson", "1 skipped by a person"),
        ("RetryPolicy/degraded_selectedTwice", "shop/hasty"),
        ("Choreography/healthy_late", "2 late, waiting for an event"),
        ("Choreography/degraded_topicsUnread", "cannot read shop.orders.events.v1"),
    ],
)
def test_the_message_says_why(run, name: str, said: str) -> None:
    assert said in run(argocd_cm.script(name.partition("/")[0], "health"), load(name))["message"]


@pytest.mark.parametrize("kind", argocd_cm.SCRIPTS)
def test_a_status_of_unexpected_shape_is_progress_and_no_error(run, kind: str) -> None:
    for status in ({}, {"observedGeneration": 1}, {"observedGeneration": 1, "conditions": []}):
        obj = {"metadata": {"generation": 1}, "spec": {}, "status": status}
        assert run(argocd_cm.script(kind, "health"), obj)["status"] == "Progressing"


def test_the_config_map_is_made_of_the_scripts_as_they_are() -> None:
    assert argocd_cm.TARGET.read_text() == argocd_cm.render(), "run `make argocd-cm`"
