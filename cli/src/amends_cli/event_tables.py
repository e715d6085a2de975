"""How `amends events` shows what services answer: columns, and the lines of one event and one replay."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from amends_cli import output
from amends_cli.durations import age_in_words
from amends_cli.output import Column, OutputRow, Styled, as_json, field

if TYPE_CHECKING:
    from amends.events.v1 import events_service_pb2 as pb


def _number(name: str) -> Any:
    return lambda row: str(row.get(name, 0))


def _list(name: str) -> Any:
    return lambda row: " ".join(one.rpartition(".")[2] for one in row.get(name, [])) or "-"


def _age(name: str) -> Any:
    def read(row: OutputRow) -> str:
        return age_in_words(datetime.now(UTC) - datetime.fromisoformat(row[name])) if name in row else "-"

    return read


def _word(name: str, prefix: str) -> Any:
    """Read an enum as people write it."""
    return lambda row: str(row.get(name, "")).removeprefix(prefix).lower().replace("_", " ")


_SERVICE = Column("SERVICE", field("service"))
TOPICS = [
    _SERVICE,
    Column("TOPIC", field("name")),
    Column("PARTITIONS", _number("partitions")),
    Column("EVENTS", _number("events")),
    Column("WAITING", _number("waiting")),
    Column("PUBLISHES", _list("published"), wide=True),
    Column("CONSUMERS", lambda row: " ".join(row.get("consumers", [])) or "-"),
    Column("PROBLEM", lambda row: row.get("problem", "-")),
]
_READ = [
    _SERVICE,
    Column("CONSUMER", field("consumer")),
    Column("TOPIC", field("topic")),
]
_STATE = [
    Column("STATE", _word("state", "READING_STATE_")),
    Column("BLOCKED KEYS", _number("blockedKeys")),
    Column("LAST EVENT", _age("eventAt")),
]
LAG = [
    *_READ,
    Column("PARTITION", _number("partition")),
    Column("POSITION", _number("position")),
    Column("FIRST", _number("first"), wide=True),
    Column("LAST", _number("last")),
    Column("LAG", _number("lag")),
    *_STATE,
    Column("PROBLEM", lambda row: row.get("problem", "-"), cut=True),
    Column("OWNER", field("owner"), wide=True),
]
LAG_SUMMARY = [
    *_READ,
    Column("PARTITIONS", _number("partitions")),
    Column("LAG", _number("lag")),
    *_STATE,
    Column("PROBLEM", lambda row: row.get("problem", "-"), cut=True),
]
PARKED = [
    Column("NAME", field("name")),
    _SERVICE,
    Column("KEY", field("key")),
    Column("TYPE", lambda row: row.get("type", "").rpartition(".")[2]),
    Column("REASON", _word("reason", "PARKED_REASON_")),
    Column("ATTEMPTS", _number("attempts")),
    Column("AGE", _age("parkedAt")),
    Column("DECIDED", lambda row: _word("decision", "PARKED_DECISION_")(row) or "-"),
    Column("DETAIL", lambda row: row.get("detail", "").split("\n")[0], cut=True),
    Column("EVENT", field("eventId"), wide=True),
]
OUTBOX = [
    Column("EVENT", field("eventId")),
    _SERVICE,
    Column("TOPIC", field("topic")),
    Column("PARTITION", _number("partition")),
    Column("KEY", field("key")),
    Column("TYPE", lambda row: row.get("type", "").rpartition(".")[2]),
    Column("VERSION", _number("version"), wide=True),
    Column("BYTES", _number("bytes")),
    Column("AGE", _age("occurredAt")),
]
DECISIONS = [
    Column("WHEN", lambda row: row.get("decidedAt", "")[:19] + "Z"),
    _SERVICE,
    Column("DECISION", field("decision")),
    Column("ABOUT", field("subject")),
    Column("ACTOR", field("actor")),
    Column("IDENTITY", field("identity"), wide=True),
    Column("REASON", field("reason")),
    Column("EFFECT", field("effect"), cut=True),
]
MADE = [
    Column("TOPIC", field("topic")),
    Column("PARTITIONS", _number("partitions")),
    Column("RESULT", field("result")),
]
_STATES = ("READING_STATE_POSITION_LOST", "READING_STATE_UNOWNED", "READING_STATE_READING")


def summary(partitions: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each consumer and topic: sums, the worst state, and the oldest of the last events."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for one in partitions:
        row = found.setdefault(
            (one["consumer"], one["topic"]),
            {name: one[name] for name in ("service", "consumer", "topic")}
            | {"state": _STATES[-1], "partitions": 0, "lag": 0, "blockedKeys": 0},
        )
        row["partitions"] += 1
        row["lag"] += int(one.get("lag", 0))
        row["blockedKeys"] += int(one.get("blockedKeys", 0))
        row["state"] = min(row["state"], one.get("state", _STATES[-1]), key=_severity)
        if "problem" in one:
            row.setdefault("problem", one["problem"])
        if "eventAt" in one:
            row["eventAt"] = max(row.get("eventAt", ""), one["eventAt"])
    return list(found.values())


def _severity(state: object) -> int:
    """Return the place of a state among those that a person has to look at, the worst first."""
    return _STATES.index(str(state)) if state in _STATES else len(_STATES)


def show_parked(answer: "pb.GetParkedResponse") -> None:
    """Print one parked event: why it waits, what was decided, and the event itself."""
    from amends_cli.resources import plain

    row, event = plain(answer.parked), plain(answer.event)
    reason = _word("reason", "PARKED_REASON_")(row)
    output.line(Styled(row["name"], bold=True), f"  {row.get('type', 'no type')} of {row.get('key', 'no key')}")
    released = answer.parked.HasField("released_at")
    state = "does not wait any more" if released else f"{reason}, after {answer.parked.attempts} attempts"
    output.line(Styled(state, None if released else "magenta"), f", parked for {_age('parkedAt')(row)}")
    for text in row.get("detail", "").split("\n"):
        output.line(f"  {text}")
    if "decidedBy" in row:
        decision = _word("decision", "PARKED_DECISION_")(row)
        output.line(f"{decision} decided by {row['decidedBy']}: {row.get('decidedBecause', '')}")
    if answer.behind:
        output.line(f"{answer.behind} more of this key wait behind it")
    output.lines(as_json(event, indent=2))
    if not released and not answer.parked.decision and reason != "after":
        for verb in ("retry", "skip"):
            output.line(Styled(f"  amends events parked {verb} {row['name']} --reason '...'", "cyan"))


def show_replay(request: "pb.ReplayRequest", answer: "pb.ReplayResponse") -> None:
    """Print what a replay does to each partition."""
    rows = [
        [str(number) for number in (move.partition, move.position, move.back_to, move.events, move.lost)]
        for move in answer.moves
    ]
    if rows:
        output.emit_table(("PARTITION", "POSITION", "GOES TO", "READ AGAIN", "LOST"), rows)
    effect = "handles them all again" if request.force else "handles what it has not handled"
    verb = "reads" if answer.done else "would read"
    lost = f"; {answer.lost} are lost" if answer.lost else ""
    output.line(f"{request.consumer} {verb} {answer.events} events again and {effect}{lost}")


def between(first: Any, last: Any) -> str:
    """Return when events occurred, in words."""
    return f", which occurred from {first.ToJsonString()} to {last.ToJsonString()}"
