"""What the operator remembers of objects that come, go and come again under one name."""

from typing import Any

import pytest
from amends_operator.kube.objects import Key, Kind, Objects, key_of
from amends_operator.runs.deletion import FINALIZER, Deletion


def run(uid: str, version: int, **metadata: Any) -> dict[str, Any]:
    named = {"name": "order", "namespace": "shop", "uid": uid, "resourceVersion": str(version)}
    return {"metadata": named | metadata, "spec": {"saga": "place-order"}}


@pytest.fixture
def changed() -> list[Key]:
    return []


@pytest.fixture
def objects(changed: list[Key]) -> Objects:
    return Objects(changed.append)


def remembered(objects: Objects) -> list[str]:
    return [body["metadata"]["uid"] for bodies in objects.deleted.values() for body in bodies]


def test_a_run_that_goes_is_remembered_once(objects: Objects) -> None:
    objects.seen(Kind.RUN, run("a", 1))
    objects.vanished(Kind.RUN, run("a", 2))
    objects.vanished(Kind.RUN, run("a", 2))
    assert objects.get(key_of(Kind.RUN, run("a", 1))) is None
    assert remembered(objects) == ["a"]


def test_a_late_event_brings_no_run_back(objects: Objects) -> None:
    objects.seen(Kind.RUN, run("a", 1))
    objects.vanished(Kind.RUN, run("a", 3))
    objects.seen(Kind.RUN, run("a", 2))
    assert objects.get(key_of(Kind.RUN, run("a", 1))) is None


@pytest.mark.parametrize("told", [True, False], ids=["deletion comes late", "deletion is never told"])
def test_a_run_made_again_under_its_name_does_not_hide_the_one_before(objects: Objects, told: bool) -> None:
    objects.seen(Kind.RUN, run("a", 1))
    objects.seen(Kind.RUN, run("b", 3))
    if told:
        objects.vanished(Kind.RUN, run("a", 2))
    known = objects.get(key_of(Kind.RUN, run("b", 3)))
    assert known is not None
    assert known["metadata"]["uid"] == "b"
    assert remembered(objects) == ["a"]


async def test_a_run_whose_finalizer_somebody_took_off_is_not_undone(objects: Objects) -> None:
    """The body is the last that was seen, and may be from before the deletion. Nobody is asked: there is nobody."""
    nobody: Any = None
    deletion = Deletion(nobody, objects, nobody, nobody, nobody)
    key = key_of(Kind.RUN, run("a", 1))
    objects.seen(Kind.RUN, run("a", 1, finalizers=[FINALIZER]))
    objects.vanished(Kind.RUN, run("a", 1, finalizers=[FINALIZER]))
    await deletion.vanished(key)
    assert objects.deleted == {}


async def test_a_run_that_went_without_a_finalizer_is_asked_about(objects: Objects) -> None:
    asked: list[str] = []

    class Asked(Exception):
        pass

    class Orchestrator:
        async def run_of_key(self, namespace: str, key: str) -> None:
            asked.append(f"{namespace} {key}")
            raise Asked

    nobody: Any = None
    orchestrator: Any = Orchestrator()
    deletion = Deletion(nobody, objects, orchestrator, nobody, nobody)
    objects.seen(Kind.RUN, run("a", 1))
    objects.vanished(Kind.RUN, run("a", 1))
    key = key_of(Kind.RUN, run("a", 1))
    with pytest.raises(Asked):
        await deletion.vanished(key)
    assert asked == ["shop sagarun/a"]
    assert remembered(objects) == ["a"], "it is tried again"
