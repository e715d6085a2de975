"""The promises of a method about repeating and undoing it, from the contract, the Participant, or both.

If the two disagree there is a finding, because these promises decide what is safe. Called by the analysis of a saga,
and by the orchestrator to list a Participant's methods.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

from google.protobuf.descriptor_pb2 import MethodDescriptorProto, MethodOptions

from amends.options.v1 import options_pb2
from amends_saga.definition.resources import MethodEntry
from amends_saga.plan import MethodKind

_DECLARED = {
    options_pb2.IDEMPOTENCY_ONCE: MethodKind.ONCE,
    options_pb2.IDEMPOTENCY_IDEMPOTENT: MethodKind.IDEMPOTENT,
    options_pb2.IDEMPOTENCY_KEYED: MethodKind.KEYED,
    options_pb2.IDEMPOTENCY_NO_SIDE_EFFECTS: MethodKind.READ,
}
_LEVELS = {MethodOptions.IDEMPOTENT: MethodKind.IDEMPOTENT, MethodOptions.NO_SIDE_EFFECTS: MethodKind.READ}
_WORDS = {
    "ONCE": MethodKind.ONCE,
    "IDEMPOTENT": MethodKind.IDEMPOTENT,
    "KEYED": MethodKind.KEYED,
    "NO_SIDE_EFFECTS": MethodKind.READ,
}


@dataclass(frozen=True, slots=True)
class Facts:
    """The known promises of one method."""

    kind: MethodKind = MethodKind.ONCE
    compensated_by: str = ""
    """Name of the method of the same service that undoes it; empty when neither contract nor Participant names one."""
    window: timedelta | None = None
    outcomes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Said:
    guarded: bool = False
    repeated: MethodKind | None = None
    compensated_by: str = ""
    window: timedelta | None = None


def contract_facts(method: MethodDescriptorProto) -> tuple[Facts, list[str]]:
    """Return the contract's promises about a method, and one sentence for each contradiction in it."""
    said, wrong = _contract(method)
    return _facts(said), wrong


def resolve_facts(method: MethodDescriptorProto, entry: MethodEntry | None) -> tuple[Facts, list[str]]:
    """Return the promises of contract and Participant together, and a sentence for each disagreement."""
    said, wrong = _contract(method)
    if entry is None:
        return _facts(said), wrong
    repeated = _WORDS[entry.idempotency] if entry.idempotency is not None else None
    wrong += _disagreements_about_repeating(method.name, said, entry, repeated)
    wrong += _disagreements_about_undoing(method.name, said, entry)
    together = _Said(
        guarded=said.guarded or bool(entry.guarded),
        repeated=repeated or said.repeated,
        compensated_by=said.compensated_by or entry.compensated_by or "",
        window=entry.window or said.window,
    )
    return replace(_facts(together), outcomes=dict(entry.outcomes)), wrong


def _disagreements_about_repeating(
    name: str, said: _Said, entry: MethodEntry, repeated: MethodKind | None
) -> Iterator[str]:
    if entry.guarded is False and said.guarded:
        yield f"the contract says that {name} is guarded, the Participant says that it is not"
    if repeated is not None and said.repeated is not None and not _agree(repeated, said.repeated):
        yield f"the contract says that {name} is {said.repeated.name}, the Participant says {repeated.name}"
    if repeated is MethodKind.READ and (said.guarded or entry.guarded):
        yield f"{name} cannot be guarded and without side effects"


def _disagreements_about_undoing(name: str, said: _Said, entry: MethodEntry) -> Iterator[str]:
    if entry.compensated_by is not None and said.compensated_by and entry.compensated_by != said.compensated_by:
        other = entry.compensated_by or "nothing"
        yield f"the contract says that {name} is undone by {said.compensated_by}, the Participant says by {other}"
    if entry.window is not None and said.window is not None and entry.window != said.window:
        yield f"contract and Participant name different windows for {name}"


def _contract(method: MethodDescriptorProto) -> tuple[_Said, list[str]]:
    # Read again, because a set that was parsed elsewhere may keep our option among its unknown fields.
    options = MethodOptions.FromString(method.options.SerializeToString())
    promise = options.Extensions[options_pb2.method]
    level = _LEVELS.get(options.idempotency_level)
    declared = _DECLARED.get(promise.idempotency)
    wrong: list[str] = []
    if level is not None and declared is not None and not _agree(declared, level):
        wrong.append(f"the contract says of {method.name} both {level.name} and {declared.name}")
    repeated = declared or level
    if promise.guarded and repeated is MethodKind.READ:
        wrong.append(f"the contract says that {method.name} is guarded and without side effects")
    window = promise.window.ToTimedelta() if promise.HasField("window") else None
    return _Said(promise.guarded, repeated, promise.compensated_by, window), wrong


def _agree(narrow: MethodKind, wide: MethodKind) -> bool:
    """Return whether two promises fit: KEYED is one way of being idempotent, and the more exact word."""
    return narrow is wide or (narrow is MethodKind.KEYED and wide is MethodKind.IDEMPOTENT)


def _facts(said: _Said) -> Facts:
    kind = MethodKind.GUARDED if said.guarded else said.repeated or MethodKind.ONCE
    return Facts(kind, said.compensated_by, said.window if kind is MethodKind.KEYED else None)
