"""A compiled saga as bytes, with its digest: everything that a later owner of a run needs.

The bytes are canonical: the same definition and the same reachable contracts give the same digest on every machine.
Made by `compile`, read by `load_bundle`; the orchestrator keeps them as long as a run is pinned to them.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError

from amends_saga.plan import CallPlan, MethodKind

FORMAT = 2
PLAIN_FORMAT = 1
"""Of a bundle without amendments: older versions read it, and its digest stays what it was."""


class BundleError(Exception):
    """The bytes are not a bundle, or one of a newer format. The text is a sentence for people."""


@dataclass(frozen=True, slots=True)
class BundledCall:
    """A method with its expression and messages."""

    plan: CallPlan
    request: str
    input_type: str
    output_type: str


@dataclass(frozen=True, slots=True)
class BundledStep:
    """One step of a compiled saga."""

    name: str
    after: tuple[int, ...]
    pivot: bool
    post: bool
    when: str | None
    uses: tuple[int, ...]
    action: BundledCall
    compensation: BundledCall | None
    amendment: bool = False


@dataclass(frozen=True, slots=True)
class Bundle:
    """A compiled saga as data."""

    namespace: str
    saga: str
    input_type: str
    required: tuple[str, ...]
    """Paths of input fields that must be set, because a step copies them."""
    deadline: timedelta | None
    stalled_after: timedelta | None
    steps: tuple[BundledStep, ...]
    files: tuple[FileDescriptorProto, ...]

    def to_bytes(self) -> bytes:
        """Return the bundle as canonical bytes."""
        files = FileDescriptorSet(file=self.files)
        spec = {
            "format": FORMAT if any(step.amendment for step in self.steps) else PLAIN_FORMAT,
            "namespace": self.namespace,
            "saga": self.saga,
            "input": self.input_type,
            "required": sorted(self.required),
            "deadline": _micros(self.deadline),
            "stalled_after": _micros(self.stalled_after),
            "steps": [_step(step) for step in self.steps],
            "descriptors": base64.b64encode(files.SerializeToString(deterministic=True)).decode(),
        }
        return json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def read_bundle(data: bytes) -> Bundle:
    """Return the bundle of the bytes. Raises BundleError."""
    try:
        spec = json.loads(data)
        if spec["format"] not in (PLAIN_FORMAT, FORMAT):
            raise BundleError(f"The definition has format {spec['format']}, this version reads up to {FORMAT}.")
        files = FileDescriptorSet.FromString(base64.b64decode(spec["descriptors"], validate=True))
        return Bundle(
            namespace=spec["namespace"],
            saga=spec["saga"],
            input_type=spec["input"],
            required=tuple(spec["required"]),
            deadline=_duration(spec["deadline"]),
            stalled_after=_duration(spec["stalled_after"]),
            steps=tuple(_read_step(step) for step in spec["steps"]),
            files=tuple(files.file),
        )
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error, DecodeError, RecursionError):
        raise BundleError("The bytes are no compiled saga.") from None


def _micros(value: timedelta | None) -> int | None:
    return None if value is None else value // timedelta(microseconds=1)


def _duration(micros: int | None) -> timedelta | None:
    return None if micros is None else timedelta(microseconds=micros)


def _call(call: BundledCall) -> dict[str, Any]:
    plan = call.plan
    return {
        "service": plan.service,
        "method": plan.method,
        "kind": plan.kind.value,
        "window": _micros(plan.window),
        "retention": _micros(plan.retention),
        "outcomes": dict(plan.outcomes),
        "uses_self": plan.uses_self,
        "request": call.request,
        "input": call.input_type,
        "output": call.output_type,
    }


def _step(step: BundledStep) -> dict[str, Any]:
    return {
        "name": step.name,
        "after": list(step.after),
        "pivot": step.pivot,
        "post": step.post,
        "when": step.when,
        "uses": list(step.uses),
        "action": _call(step.action),
        "compensation": None if step.compensation is None else _call(step.compensation),
        **({"amendment": True} if step.amendment else {}),
    }


def _read_call(spec: Mapping[str, Any]) -> BundledCall:
    plan = CallPlan(
        service=spec["service"],
        method=spec["method"],
        kind=MethodKind(spec["kind"]),
        window=_duration(spec["window"]),
        retention=_duration(spec["retention"]),
        outcomes=dict(spec["outcomes"]),
        uses_self=spec["uses_self"],
    )
    return BundledCall(plan, spec["request"], spec["input"], spec["output"])


def _read_step(spec: Mapping[str, Any]) -> BundledStep:
    after: Sequence[int] = spec["after"]
    return BundledStep(
        name=spec["name"],
        after=tuple(after),
        pivot=spec["pivot"],
        post=spec["post"],
        when=spec["when"],
        uses=tuple(spec["uses"]),
        action=_read_call(spec["action"]),
        compensation=None if spec["compensation"] is None else _read_call(spec["compensation"]),
        amendment=spec.get("amendment", False),
    )
