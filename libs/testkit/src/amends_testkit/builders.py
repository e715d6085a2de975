"""Short ways to the values that tests need. Called by the suites of the engine, the orchestrator and the CLI."""

from datetime import timedelta
from typing import Any

from amends_saga.plan import CallPlan, MethodKind, Plan, StepPlan
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

SERVICE = "test.v1.TestService"


def a_call(method: str, kind: MethodKind = MethodKind.GUARDED, **facts: Any) -> CallPlan:
    """One method of the test service."""
    return CallPlan(SERVICE, method, kind, **facts)


def guarded(name: str, after: tuple[int, ...] = (), **facts: Any) -> StepPlan:
    """Build a guarded step with its compensation."""
    return a_step(name, MethodKind.GUARDED, after, compensation=a_call(f"Undo{name.title()}"), **facts)


def keyed(name: str, after: tuple[int, ...] = (), window: timedelta | None = None, **facts: Any) -> StepPlan:
    """Build a plain step that dedupes on our key, with its compensation."""
    action = a_call(name.title(), MethodKind.KEYED, window=window)
    return a_step(name, MethodKind.KEYED, after, action=action, compensation=a_call(f"Undo{name.title()}"), **facts)


def read(name: str, after: tuple[int, ...] = (), **facts: Any) -> StepPlan:
    """Build a step without side effects."""
    return a_step(name, MethodKind.READ, after, **facts)


def a_step(name: str, kind: MethodKind = MethodKind.GUARDED, after: tuple[int, ...] = (), **facts: Any) -> StepPlan:
    """One step; without `action` it calls the method of its own name."""
    action = facts.pop("action", None) or a_call(name.title(), kind)
    return StepPlan(name=name, action=action, after=after, **facts)


def a_plan(*steps: StepPlan, deadline: timedelta | None = timedelta(minutes=1), **facts: Any) -> Plan:
    """Build a plan of these steps. `after` stays as given: () means at once."""
    known = {"namespace": "default", "saga": "test", "digest": "d" * 64}
    return Plan(steps=steps, deadline=deadline, **(known | facts))


def message(pool: DescriptorPool, name: str, fields: dict[str, Any]) -> Message:
    """Build a message of a pool by its full name, from canonical protobuf JSON."""
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
    return json_format.ParseDict(fields, kind(), descriptor_pool=pool)
