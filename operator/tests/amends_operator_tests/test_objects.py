"""What the operator remembers of objects that come, go and come again under one name."""

from typing import Any

import pytest
from amends_operator.kube.objects import Key, Objects, ResourceKind, key_of


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
    objects.seen(ResourceKind.RUN, run("a", 1))
    objects.vanished(ResourceKind.RUN, run("a", 2))
    objects.vanished(ResourceKind.RUN, run("a", 2))
    assert objects.get(key_of(ResourceKind.RUN, run("a", 1))) is None
    assert remembered(objects) == ["a"]


def test_a_late_event_brings_no_run_back(objects: Objects) -> None:
    objects.seen(ResourceKind.RUN, run("a", 1))
    objects.vanished(ResourceKind.RUN, run("a", 3))
    objects.seen(ResourceKind.RUN, run("a", 2))
    assert objects.get(key_of(ResourceKind.RUN, run("a", 1))) is None


@pytest.mark.parametrize("told", [True, False], ids=["deletion comes late", "deletion is never told"])
def test_a_run_made_again_under_its_name_does_not_hide_the_one_before(objects: Objects, told: bool) -> None:
    objects.seen(ResourceKind.RUN, run("a", 1))
    objects.seen(ResourceKind.RUN, run("b", 3))
    if told:
        objects.vanished(ResourceKind.RUN, run("a", 2))
    known = objects.get(key_of(ResourceKind.RUN, run("b", 3)))
    assert known is not None
    assert known["metadata"]["uid"] == "b"
    assert remembered(objects) == ["a"]
