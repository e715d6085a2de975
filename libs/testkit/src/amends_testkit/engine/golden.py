"""Journals as files, and what the engine makes of them: what an owner that takes over sees and does.

Called by the script that records golden journals and by the test that replays them for ever. Everything that a replay
depends on stands in the file, the plan included, so that no later change of a test helper changes its meaning.
"""

import base64
from datetime import datetime, timedelta
from typing import Any

from amends_saga.engine import RunState, advance, cancellable, replay, resolutions
from amends_saga.engine import events as ev
from amends_saga.engine.ledger import UnreadableJournalError
from amends_saga.journal import KINDS, RULES_VERSION, decode, encode
from amends_saga.plan import CallPlan, MethodKind, Plan, StepPlan

RUN = "golden"
ROUNDS = 20

JsonObject = dict[str, Any]


def dump(name: str, about: str, plan: Plan, journal: list[ev.Recorded]) -> JsonObject:
    """Return a journal as data, with what is made of each beginning of it."""
    records = [{"seq": e.seq, "fence": e.fence, "record": base64.b64encode(encode(plan, e)).decode()} for e in journal]
    data: JsonObject = {
        "name": name,
        "about": about,
        "rules": RULES_VERSION,
        "plan": _plan_data(plan),
        "records": records,
    }
    data["expected"] = [expected(data, length) for length in range(1, len(records) + 1)]
    return data


def expected(data: JsonObject, length: int) -> JsonObject:
    """Return what an owner that finds the first `length` records sees, and what it does.

    Raises UnreadableJournalError.
    """
    if data["rules"] > RULES_VERSION:
        raise UnreadableJournalError(f"the journal follows rules {data['rules']}, this version knows {RULES_VERSION}")
    plan = _plan(data["plan"])
    journal = [decode(plan, r["seq"], r["fence"], base64.b64decode(r["record"])) for r in data["records"][:length]]
    last = journal[-1]
    state = replay(plan, RUN, last.fence + 1, journal)
    return {"state": _state(plan, state), "commands": _commands(plan, state, last.at)}


# ---------------------------------------------------------------- what an owner does


def _commands(plan: Plan, state: RunState, now: datetime) -> list[str]:
    """Return the commands, with every expression evaluated and every action admitted."""
    told: list[str] = []
    signals: list[ev.Signal | None] = [None]
    for _ in range(ROUNDS):
        if not signals:
            return told
        state, commands = advance(plan, state, signals.pop(0), now)
        for command in commands:
            told.append(_told(plan, command))
            match command:
                case ev.Prepare(step, call):
                    signals.append(_prepared(plan, state, step, call))
                case ev.Admit(step):
                    signals.append(ev.Admitted(step))
                case _:
                    continue
    raise AssertionError("the owner comes to no rest")


def _prepared(plan: Plan, state: RunState, index: int, call: ev.Operation) -> ev.Prepared:
    step_plan = plan.steps[index]
    used = b",".join(state.steps[u].response or b"" for u in step_plan.uses)
    own = step_plan.compensation is not None and step_plan.compensation.uses_self
    if call is ev.Operation.COMPENSATION:
        return ev.Prepared(index, call, compensation=used + (state.steps[index].response or b""))
    undo = used if step_plan.compensation is not None and not own else None
    return ev.Prepared(index, call, request=used, compensation=undo)


def _told(plan: Plan, command: ev.Command) -> str:
    match command:
        case ev.Record(entry):
            # Texts for people may be reworded.
            fields = {name: value for name, value in entry.event._asdict().items() if value and name != "message"}
            shown = ", ".join(f"{name}={_value(plan, name, value)}" for name, value in fields.items())
            name = "".join(word.capitalize() for word in KINDS[type(entry.event)].split("_"))
            return f"record {entry.seq} {name}({shown})"
        case ev.Wait(until):
            return f"wait until {until.isoformat()}"
        case ev.Admit(step):
            return f"admit {plan.steps[step].name}"
        case ev.Prepare(step, call) | ev.Send(step, call):
            return f"{type(command).__name__.lower()} {call.value} of {plan.steps[step].name}"


def _value(plan: Plan, name: str, value: Any) -> str:
    if name in ("step", "amendment"):
        return str(plan.steps[value].name)
    if name == "undo":
        return "+".join(plan.steps[i].name for i in value)
    return str(value)


# ---------------------------------------------------------------- what an owner sees


def _state(plan: Plan, state: RunState) -> JsonObject:
    parked, decided = state.parked, state.decided
    return {
        "phase": state.phase.value,
        "seq": state.seq,
        "successor": state.successor,
        "deadline": state.deadline.isoformat() if state.deadline else None,
        "cancellable": cancellable(plan, state),
        "parked": f"{parked.reason.value} {plan.steps[parked.step].name if parked.step is not None else '-'} "
        f"{parked.call.value}"
        if parked
        else None,
        "resolutions": [action.value for action in resolutions(plan, state)],
        "undo": [plan.steps[i].name for i in decided.undo] if decided else None,
        "skipped_by_person": state.skipped_by_person,
        "steps": {step_plan.name: _step(state, index) for index, step_plan in enumerate(plan.steps)},
    }


def _step(state: RunState, index: int) -> JsonObject:
    step = state.steps[index]
    shown = {
        "done": step.done.value if step.done else None,
        "undone": step.undone.value if step.undone else None,
        "response": base64.b64encode(step.response).decode() if step.response is not None else None,
        "in_doubt": step.in_doubt,
        "tried": step.attempt_recorded,
        "attempts": step.attempts,
        "retries": step.retries,
        "intent": step.intent_seq,
        "skipping": step.skipping,
        "by_person": step.by_person,
        "since": step.waiting_since.isoformat() if step.waiting_since else None,
    }
    return {name: value for name, value in shown.items() if value}


# ---------------------------------------------------------------- plans as data


def _plan_data(plan: Plan) -> JsonObject:
    return {
        "namespace": plan.namespace,
        "saga": plan.saga,
        "digest": plan.digest,
        "deadline": _seconds(plan.deadline),
        "stalled_after": _seconds(plan.stalled_after),
        "steps": [
            {
                "name": step.name,
                "after": list(step.after),
                "uses": list(step.uses),
                "pivot": step.pivot,
                "post": step.post,
                "has_when": step.has_when,
                **({"amendment": True} if step.amendment else {}),
                "action": _call_data(step.action),
                "compensation": _call_data(step.compensation) if step.compensation else None,
            }
            for step in plan.steps
        ],
    }


def _call_data(call: CallPlan) -> JsonObject:
    return {
        "service": call.service,
        "method": call.method,
        "kind": call.kind.value,
        "window": _seconds(call.window),
        "retention": _seconds(call.retention),
        "outcomes": dict(call.outcomes),
        "uses_self": call.uses_self,
    }


def _plan(data: JsonObject) -> Plan:
    steps = tuple(
        StepPlan(
            step["name"],
            _call(step["action"]),
            _call(step["compensation"]) if step["compensation"] else None,
            tuple(step["after"]),
            step["pivot"],
            step["post"],
            amendment=step.get("amendment", False),
            has_when=step["has_when"],
            uses=tuple(step["uses"]),
        )
        for step in data["steps"]
    )
    deadline, stalled = _duration(data["deadline"]), _duration(data["stalled_after"])
    return Plan(data["namespace"], data["saga"], data["digest"], steps, deadline, stalled)


def _call(data: JsonObject) -> CallPlan:
    return CallPlan(
        data["service"],
        data["method"],
        MethodKind(data["kind"]),
        _duration(data["window"]),
        _duration(data["retention"]),
        data["outcomes"],
        data["uses_self"],
    )


def _seconds(value: timedelta | None) -> float | None:
    return None if value is None else value.total_seconds()


def _duration(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
