"""Reads the spec of a Choreography: its key, participants and events.

Called by `documents`.
"""

from collections.abc import Sequence
from typing import TypeVar

from amends_saga import codes
from amends_saga.definition.fields import Fields, is_name
from amends_saga.definition.nodes import Node, NodeKind, scalar
from amends_saga.definition.resources import (
    Choreography,
    DescribedEvent,
    EventAnswer,
    EventName,
    EventParticipant,
    EventUndo,
    FlowEnding,
    ResourceMetadata,
)
from amends_saga.definition.saga_kind import STEP_NAME, descriptors, is_full_name
from amends_saga.findings import Finding

T = TypeVar("T")
MAX_EVENTS = 100
MAX_AT_MOST = 100
_SPEC = ("key", "start", "participants", "events", "descriptors", "suspend")
_START = ("event", "where")
_PARTICIPANT = ("name", "publishes", "consumes")
_EVENT = ("event", "answers", "effect", "undoneBy", "atMost", "ends")
_ANSWER = ("by", "with", "within")
_UNDO = ("event", "upon", "within")
_EVENT_HINT = "Write the full name of a message, e.g. shop.orders.events.v1.OrderPlaced."


def choreography(metadata: ResourceMetadata, spec: Node, findings: list[Finding]) -> Choreography | None:
    """Return the Choreography, None when too little of it could be read."""
    fields = Fields(
        spec, "The spec of a Choreography", _SPEC, findings, required=("key", "start", "participants", "events")
    )
    fields.flag("suspend")
    given = descriptors(fields)
    key, key_node = fields.text("key"), fields.node_of("key")
    if key is not None and key_node is not None and STEP_NAME.fullmatch(key) is None:
        fields.add(codes.BAD_NAME, key_node, f"`{key[:80]}` cannot name a field.", "Write e.g. order_id.")
        return None
    began = fields.part("start", _START, required=("event",))
    start = _event(began, "event") if began is not None else None
    where = _where(began) if began is not None else ()
    participants = _whole([_participant(item, findings) for item in _items(fields, "participants")])
    events = _whole([_described(item, findings) for item in _items(fields, "events")])
    if key is None or key_node is None or start is None or participants is None or not events:
        return None
    return Choreography(metadata, key, key_node, start, where, participants, events, given)


def _whole(items: Sequence[T | None]) -> tuple[T, ...] | None:
    """Return the items, None when one of them could not be read."""
    found = tuple(item for item in items if item is not None)
    return found if len(found) == len(items) else None


def _items(fields: Fields, name: str) -> list[Node]:
    """Return the entries of a list of mappings; a finding when it is none, is empty or is too long."""
    node = fields.node_of(name)
    if node is None:
        return []
    if node.kind is not NodeKind.SEQUENCE:
        fields.add(codes.WRONG_TYPE, node, f"`{name}` must be a list.", "Write `- ...` for each.")
        return []
    if not node.items:
        fields.add(codes.MISSING_FIELD, node, f"`{name}` has no entries.", "Add one.")
    if len(node.items) > MAX_EVENTS:
        message = f"`{name}` has {len(node.items):,} entries, more than {MAX_EVENTS}."
        fields.add(codes.TOO_LARGE, node.items[MAX_EVENTS], message, "Split it into several choreographies.")
    return node.items[:MAX_EVENTS]


def _where(start: Fields) -> tuple[tuple[Node, Node], ...]:
    node = start.node_of("where")
    if node is None:
        return ()
    if node.kind is not NodeKind.MAPPING:
        hint = "Write {fulfilment: FULFILMENT_CHOREOGRAPHED}."
        start.add(codes.WRONG_TYPE, node, "`where` must be a mapping of fields to values.", hint)
        return ()
    found = []
    for key, value in node.pairs:
        if value.kind is NodeKind.SCALAR and isinstance(scalar(value), str):
            found.append((key, value))
        else:
            hint = f'Put it in quotes: "{value.value[:60]}".' if value.kind is NodeKind.SCALAR else "Write one value."
            start.add(codes.WRONG_TYPE, value, f"The value of `{key.value[:80]}` must be text.", hint)
    return tuple(found)


def _participant(node: Node, findings: list[Finding]) -> EventParticipant | None:
    fields = Fields(node, "A participant", _PARTICIPANT, findings, required=("name",))
    name, name_node = fields.text("name"), fields.node_of("name")
    publishes, consumes = _events(fields, "publishes"), _events(fields, "consumes")
    if name is None or name_node is None:
        return None
    if not is_name(name):
        hint = "Use lower case letters, digits and dashes, at most 63."
        fields.add(codes.BAD_NAME, name_node, f"`{name[:80]}` cannot name a participant.", hint)
        return None
    return EventParticipant(name, name_node, publishes or (), consumes or ())


def _described(node: Node, findings: list[Finding]) -> DescribedEvent | None:
    fields = Fields(node, "An event", _EVENT, findings, required=("event",))
    event, effect = _event(fields, "event"), fields.flag("effect")
    answers = _whole([_answer(item, findings) for item in _items(fields, "answers")])
    undo = _undo(fields)
    at_most, bound = fields.whole("atMost"), fields.node_of("atMost")
    if at_most is not None and bound is not None and not 1 <= at_most <= MAX_AT_MOST:
        fields.add(codes.BAD_VALUE, bound, f"`atMost` must be 1 to {MAX_AT_MOST}.", "Write e.g. 3.")
        return None
    ends = fields.choice("ends", list(FlowEnding))
    if effect is False and (undone := fields.node_of("undoneBy")) is not None:
        hint = "Leave out `undoneBy`, or `effect`."
        fields.add(codes.BAD_VALUE, undone, "What has no effect is not undone.", hint)
    if event is None or answers is None or (undo is None and fields.node_of("undoneBy") is not None):
        return None
    return DescribedEvent(
        event,
        answers,
        fields.node_of("answers"),
        effect is not False,
        undo,
        at_most,
        FlowEnding(ends) if ends is not None else None,
    )


def _answer(node: Node, findings: list[Finding]) -> EventAnswer | None:
    fields = Fields(node, "An answer", _ANSWER, findings, required=_ANSWER)
    by, by_node, within = fields.text("by"), fields.node_of("by"), fields.duration("within")
    events, with_node = _events(fields, "with"), fields.node_of("with")
    if with_node is not None and events == ():
        fields.add(codes.MISSING_FIELD, with_node, "`with` names no event.", "Add one.")
    if by is None or by_node is None or not events or within is None:
        return None
    return EventAnswer(node, by, by_node, events, within)


def _undo(fields: Fields) -> EventUndo | None:
    part = fields.part("undoneBy", _UNDO, required=("event", "within"))
    if part is None:
        return None
    event, upon, within = _event(part, "event"), _events(part, "upon"), part.duration("within")
    return EventUndo(event, upon, within) if event is not None and within is not None else None


def _event(fields: Fields, name: str) -> EventName | None:
    text, node = fields.text(name), fields.node_of(name)
    return _named(fields, text, node) if text is not None and node is not None else None


def _events(fields: Fields, name: str) -> tuple[EventName, ...] | None:
    texts = fields.texts(name)
    if texts is None:
        return None
    found = (_named(fields, text, node) for text, node in texts)
    return tuple(one for one in found if one is not None)


def _named(fields: Fields, text: str, node: Node) -> EventName | None:
    if not is_full_name(text):
        fields.add(codes.BAD_NAME, node, f"`{text[:80]}` cannot name an event.", _EVENT_HINT)
        return None
    return EventName(text, node)
