"""The objects as last seen, by kind, namespace and name; the watch, lists and our own writes all bring them here.

An older version never replaces a newer one, so neither a repeated event nor a stale list can turn time back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Body = dict[str, Any]
GROUP, VERSION = "amends.dev", "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
RECONCILE_AT = f"{GROUP}/reconcile-at"
"""An annotation: each new value asks for another look."""
HANDLED = "lastHandledReconcileAt"
"""The field of the status that says to which of these the look was given."""
_LONGEST_ASKED = 100
_NOISE = ("kubectl.kubernetes.io/last-applied-configuration",)


class ResourceKind(StrEnum):
    """Our kinds, by the plural that addresses have."""

    SAGA = "sagas"
    RUN = "sagaruns"
    POLICY = "retrypolicies"
    PARTICIPANT = "participants"
    CHOREOGRAPHY = "choreographies"


NAMES = {
    ResourceKind.SAGA: "Saga",
    ResourceKind.RUN: "SagaRun",
    ResourceKind.POLICY: "RetryPolicy",
    ResourceKind.PARTICIPANT: "Participant",
    ResourceKind.CHOREOGRAPHY: "Choreography",
}


@dataclass(frozen=True, slots=True)
class Key:
    """The kind, namespace and name of one of our objects."""

    kind: ResourceKind
    namespace: str
    name: str

    @property
    def full_name(self) -> str:
        """Return namespace/name."""
        return f"{self.namespace}/{self.name}"


def key_of(kind: ResourceKind, body: Body) -> Key:
    """Return the key of an object."""
    metadata = body["metadata"]
    return Key(kind, metadata["namespace"], metadata["name"])


def version_of(body: Body) -> int:
    """Return the object's resourceVersion as a number: API servers count in one sequence."""
    return int(body["metadata"].get("resourceVersion") or 0)


def asked_of(body: Body) -> str:
    """Return the value of the annotation that asks for another look, empty when there is none."""
    return str((body["metadata"].get("annotations") or {}).get(RECONCILE_AT, ""))[:_LONGEST_ASKED]


def asks_again(body: Body) -> bool:
    """Return whether somebody asked for another look since the last one."""
    return asked_of(body) not in ("", (body.get("status") or {}).get(HANDLED))


def generation_of(body: Body) -> int:
    """Return the object's generation, which counts the changes of its spec."""
    return int(body["metadata"].get("generation") or 0)


class Objects:
    """The objects of the cluster that the operator knows. One instance; only its event loop touches it."""

    def __init__(self, changed: Callable[[Key], None]) -> None:
        """Take the listener that is called for every object that came, changed or went, but not for our own writes."""
        self._changed = changed
        self._known: dict[ResourceKind, dict[Key, Body]] = {kind: {} for kind in ResourceKind}
        self._gone: dict[str, int] = {}
        self.deleted: dict[Key, list[Body]] = {}
        """The last form of runs that vanished, until their reconciler has looked at them."""

    def get(self, key: Key) -> Body | None:
        """Return the object, None when there is none."""
        return self._known[key.kind].get(key)

    def of(self, kind: ResourceKind, namespace: str | None = None) -> Iterator[tuple[Key, Body]]:
        """Iterate over the objects of a kind, of one namespace or all."""
        for key, body in list(self._known[kind].items()):
            if namespace in (None, key.namespace):
                yield key, body

    def seen(self, kind: ResourceKind, body: Body) -> None:
        """Take in an object as the API server shows it now, or showed it a while ago."""
        if self._put(key_of(kind, body), body):
            self._changed(key_of(kind, body))

    def written(self, kind: ResourceKind, body: Body) -> Body:
        """Take in an object as it is after a write of ours, so that its echo in the watch changes nothing."""
        self._put(key_of(kind, body), body)
        return body

    def vanished(self, kind: ResourceKind, body: Body) -> None:
        """Note that an object was deleted."""
        key = key_of(kind, body)
        known = self._known[kind].get(key)
        uid = body["metadata"]["uid"]
        if known is None or known["metadata"]["uid"] == uid:  # else another one of the same name lives
            self._known[kind].pop(key, None)
        if uid not in self._gone:
            self._note_gone(key, body)
        self._changed(key)

    def _note_gone(self, key: Key, body: Body) -> None:
        self._gone[body["metadata"]["uid"]] = version_of(body)
        while len(self._gone) > 10_000:
            del self._gone[next(iter(self._gone))]
        if key.kind is ResourceKind.RUN:
            self.deleted.setdefault(key, []).append(body)

    def _put(self, key: Key, body: Body) -> bool:
        known = self._known[key.kind].get(key)
        if known is not None and version_of(known) >= version_of(body):
            return False
        if body["metadata"]["uid"] in self._gone:
            return False
        if known is not None and known["metadata"]["uid"] != body["metadata"]["uid"]:
            self._note_gone(key, known)  # deleted and made again before anybody said so
        self._known[key.kind][key] = trimmed(body) if key.kind is not ResourceKind.RUN else _trimmed_run(body)
        return True


def trimmed(body: Body) -> Body:
    """Return an object without the metadata that the operator does not read."""
    metadata = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    if "annotations" in metadata:
        metadata["annotations"] = {n: v for n, v in metadata["annotations"].items() if n not in _NOISE}
    return body | {"metadata": metadata}


def _trimmed_run(body: Body) -> Body:
    """Return only what is still needed of a run that has ended and asks for nothing: there may be many."""
    shown = trimmed(body)
    status = shown.get("status") or {}
    if "endedAt" not in status or "deletionTimestamp" in shown["metadata"] or _asks(shown):
        return shown
    kept = ("name", "namespace", "uid", "resourceVersion", "generation", "finalizers", "annotations")
    spec = shown.get("spec") or {}
    return {
        "metadata": {name: shown["metadata"][name] for name in kept if shown["metadata"].get(name)},
        "spec": {"ttlAfterEnd": spec["ttlAfterEnd"]} if "ttlAfterEnd" in spec else {},
        "status": {name: status[name] for name in _ENDED if name in status},
    }


_ENDED = ("endedAt", "phase", "observedGeneration", "runId", HANDLED)


def _asks(body: Body) -> bool:
    annotations = body["metadata"].get("annotations") or {}
    return any(name.startswith(f"{GROUP}/") for name in annotations) or "resolution" in (body.get("spec") or {})
