"""The rules of choreographies: what can be known of one before anybody publishes an event.

Called by `checker` for the documents that are checked, and by the monitor when one is applied.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet

from amends_saga import codes
from amends_saga.choreography.contracts import EventContract, EventContracts, enum_values, read_contracts
from amends_saga.choreography.flow import short
from amends_saga.choreography.plan import ChoreographyPlan, plan_of
from amends_saga.choreography.walk import MAX_STATES, Walked, walk
from amends_saga.definition import Choreography, DescribedEvent, EventName
from amends_saga.descriptors import DescriptorError, parse_set
from amends_saga.findings import Finding, choices, has_errors, ordered, suggestion

SHOWN = 8
"""So many events of a path are named in a finding: the last ones."""


@dataclass(frozen=True)
class ChoreographyCheck:
    """The result of checking one choreography."""

    findings: list[Finding]
    """Errors first, then by place."""
    plan: ChoreographyPlan | None
    """None when there is an error."""
    contracts: EventContracts
    """What the contracts say of all messages that they have."""
    files: FileDescriptorSet
    states: int = 0
    """How many sets of events can have come; 0 when the paths could not be walked."""


class _Roles:
    """A choreography, and who publishes and consumes what in it."""

    def __init__(self, choreography: Choreography) -> None:
        self.choreography = choreography
        self.described = {one.event.name: one for one in choreography.events}
        self.publishers: dict[str, str] = {}
        for one in choreography.participants:
            for event in one.publishes:
                self.publishers.setdefault(event.name, one.name)
        self.publishes = {one.name: {event.name for event in one.publishes} for one in choreography.participants}
        self.consumes = {one.name: {event.name for event in one.consumes} for one in choreography.participants}

    @cached_property
    def named(self) -> list[EventName]:
        """Return every place that names an event, those of `events` first."""
        choreography = self.choreography
        found = [one.event for one in choreography.events]
        found.append(choreography.start)
        for one in choreography.events:
            found += [event for answer in one.answers for event in answer.events]
            if one.undone_by is not None:
                found += [one.undone_by.event, *(one.undone_by.upon or ())]
        for participant in choreography.participants:
            found += [*participant.publishes, *participant.consumes]
        return found


def check_choreography(choreography: Choreography, descriptors: bytes | None) -> ChoreographyCheck:
    """Return the findings about one choreography, and its plan when none is an error.

    `descriptors` is a FileDescriptorSet with its events, unless the choreography has one itself.
    """
    findings: list[Finding] = []
    names = _Roles(choreography)
    own = choreography.descriptors.inline if choreography.descriptors is not None else None
    files = _files(choreography, own or descriptors, findings)
    contracts = read_contracts(files)
    if contracts:
        findings += _contract_findings(names, contracts)
        findings += _where_findings(names, contracts, files)
    findings += _name_findings(names)
    findings += _consumer_findings(names)
    cycle = list(_cycle_findings(names))
    findings += cycle
    plan, states = plan_of(choreography), 0
    # A walk over what is misnamed would tell the same mistake again, as a path without an end.
    if not cycle and plan.start in plan.events and not has_errors(findings):
        walked = walk(plan)
        states = walked.states
        findings += _path_findings(names, walked)
    return ChoreographyCheck(ordered(findings), None if has_errors(findings) else plan, contracts, files, states)


def _files(choreography: Choreography, data: bytes | None, findings: list[Finding]) -> FileDescriptorSet:
    node = choreography.key_node
    if data is None:
        hint = "Give a FileDescriptorSet that has them, in `descriptors`, or with --descriptors or --protos."
        findings.append(node.finding(codes.DESCRIPTORS_UNKNOWN, "The contracts of the events are not known.", hint))
        return FileDescriptorSet()
    try:
        return parse_set(data)
    except DescriptorError as error:
        hint = "Give the output of protoc --descriptor_set_out."
        findings.append(node.finding(codes.DESCRIPTORS_BROKEN, str(error), hint))
        return FileDescriptorSet()


def _contract_findings(names: _Roles, contracts: EventContracts) -> Iterator[Finding]:
    """Yield what the contracts say against the events, each at the first place that names it."""
    told = set[str]()
    for event in names.named:
        if event.name in told:
            continue
        told.add(event.name)
        contract = contracts.get(event.name)
        if contract is None:
            hint = choices(event.name, contracts, "Look at the package and the name.")
            message = f"There is no message `{event.name}` in the contracts."
            yield event.node.finding(codes.EVENT_UNKNOWN, message, hint)
        elif not contract.is_event:
            hint = "Give its file the option (amends.options.v1.topic) and the message (amends.options.v1.event)."
            yield event.node.finding(codes.NO_EVENT, f"`{event.name}` is no event of a topic.", hint)
        elif not _has_key(contract, names.choreography.key):
            message = f"`{event.name}` has no text `{names.choreography.key}`."
            texts = [name for name in contract.fields if _has_key(contract, name)]
            near = suggestion(names.choreography.key, texts)
            hint = f"Did you mean `{near}`?" if near else "Add the field to the event, or take another key."
            yield event.node.finding(codes.KEY_MISSING, message, hint)


def _has_key(contract: EventContract, key: str) -> bool:
    field = contract.fields.get(key)
    return (
        field is not None
        and field.type == FieldDescriptorProto.TYPE_STRING
        and field.label != FieldDescriptorProto.LABEL_REPEATED
    )


def _where_findings(names: _Roles, contracts: EventContracts, files: FileDescriptorSet) -> Iterator[Finding]:
    start = contracts.get(names.choreography.start.name)
    for key, value in names.choreography.where if start is not None else ():
        assert start is not None
        field = start.fields.get(key.value)
        if field is None:
            message = f"`{start.name}` has no field `{key.value[:80]}`."
            yield key.finding(codes.BAD_WHERE, message, choices(key.value, start.fields, "Name one of its fields."))
            continue
        plain = field.type in (FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_BOOL)
        known = ["true", "false"] if field.type == FieldDescriptorProto.TYPE_BOOL else []
        if field.type == FieldDescriptorProto.TYPE_ENUM:
            known = enum_values(files, field.type_name.lstrip("."))
        if (not plain and not known) or field.label == FieldDescriptorProto.LABEL_REPEATED:
            hint = "Name a text, a boolean or an enum."
            yield key.finding(codes.BAD_WHERE, f"The value of `{key.value}` cannot be compared.", hint)
        elif known and value.value not in known:
            message = f"`{key.value}` is never `{value.value[:80]}`."
            yield value.finding(codes.BAD_WHERE, message, choices(value.value, known))


def _name_findings(names: _Roles) -> Iterator[Finding]:
    """Yield what is named and not there, or there twice."""
    choreography = names.choreography
    counts = Counter(one.event.name for one in choreography.events)
    for one in choreography.events:
        if counts[one.event.name] > 1:
            counts[one.event.name] = 0
            message = f"`{one.event.name}` is described twice."
            yield one.event.node.finding(codes.EVENT_TWICE, message, "Leave one of them out.")
    by_name = Counter(one.name for one in choreography.participants)
    for participant in choreography.participants:
        if by_name[participant.name] > 1:
            by_name[participant.name] = 0
            message = f"The participant `{participant.name}` is described twice."
            yield participant.node.finding(codes.EVENT_TWICE, message, "Leave one of them out.")
    told = set[str]()
    for event in names.named:
        if event.name not in names.described and event.name not in told:
            told.add(event.name)
            message = f"`events` does not describe `{event.name}`."
            yield event.node.finding(codes.EVENT_NOT_DESCRIBED, message, f"Add `- event: {event.name}` to `events`.")
    yield from _publisher_findings(names)


def _publisher_findings(names: _Roles) -> Iterator[Finding]:
    first: dict[str, str] = {}
    for participant in names.choreography.participants:
        for event in participant.publishes:
            other = first.setdefault(event.name, participant.name)
            if other != participant.name:
                message = f"`{other}` and `{participant.name}` publish `{event.name}`."
                hint = "Let one of them publish it, or give each an event of its own."
                yield event.node.finding(codes.TWO_PUBLISHERS, message, hint)
    for described in names.choreography.events:
        if described.event.name not in names.publishers:
            message = f"No participant publishes `{described.event.name}`."
            hint = "Add it to `publishes` of the participant that does."
            yield described.event.node.finding(codes.NOBODY_PUBLISHES, message, hint)


def _consumer_findings(names: _Roles) -> Iterator[Finding]:
    undoing = {one.undone_by.event.name for one in names.choreography.events if one.undone_by is not None}
    consumed = {event for events in names.consumes.values() for event in events}
    for described in names.choreography.events:
        name = described.event.name
        if described.ends is not None and described.answers_node is not None:
            message = f"`{short(name)}` ends the flow, and has answers."
            hint = "Leave out `answers`, or `ends`."
            yield described.answers_node.finding(codes.END_ANSWERED, message, hint)
        yield from _answer_findings(names, described)
        yield from _undo_findings(names, described)
        yield from _circle_findings(names, described)
        if not described.answers and described.ends is None and name not in undoing | consumed:
            message = f"Nobody consumes `{name}`, and it ends nothing."
            hint = "Say who answers it, or add it to `consumes` of a participant."
            yield described.event.node.finding(codes.NOBODY_CONSUMES, message, hint)


def _answer_findings(names: _Roles, described: DescribedEvent) -> Iterator[Finding]:
    name = described.event.name
    for answer in described.answers:
        consumes = names.consumes.get(answer.by)
        if consumes is None:
            message = f"There is no participant `{answer.by[:80]}`."
            hint = choices(answer.by, names.consumes, "Add it to `participants`.")
            yield answer.by_node.finding(codes.PARTICIPANT_UNKNOWN, message, hint)
            continue
        if name not in consumes and names.publishers.get(name) not in (None, answer.by):
            message = f"`{answer.by}` answers `{name}`, and does not consume it."
            yield answer.by_node.finding(codes.NOT_CONSUMED, message, f"Add it to `consumes` of `{answer.by}`.")
        for event in answer.events:
            publisher = names.publishers.get(event.name)
            if publisher is not None and event.name not in names.publishes[answer.by]:
                message = f"`{event.name}` is published by `{publisher}`, not by `{answer.by}`."
                yield event.node.finding(codes.OTHER_PUBLISHER, message, f"Write `by: {publisher}`.")


def _undo_findings(names: _Roles, described: DescribedEvent) -> Iterator[Finding]:
    undo, publisher = described.undone_by, names.publishers.get(described.event.name)
    if undo is None or publisher is None:
        return
    if names.publishers.get(undo.event.name) not in (None, publisher):
        message = (
            f"`{undo.event.name}` is published by `{names.publishers[undo.event.name]}`, "
            f"and what it undoes was done by `{publisher}`."
        )
        hint = "Who has done something undoes it: name an event of the same participant."
        yield undo.event.node.finding(codes.OTHER_PUBLISHER, message, hint)
    upon = undo.upon
    if upon is None:
        upon = tuple(
            EventName(one.event.name, undo.event.node)
            for one in names.choreography.events
            if one.ends is not None and one.ends.value == "Undone"
        )
    for event in upon:
        if event.name not in names.consumes[publisher] and names.publishers.get(event.name) not in (None, publisher):
            message = f"`{publisher}` undoes upon `{event.name}`, and does not consume it."
            yield event.node.finding(codes.NOT_CONSUMED, message, f"Add it to `consumes` of `{publisher}`.")


def _circle_findings(names: _Roles, described: DescribedEvent) -> Iterator[Finding]:
    """Yield a finding for an event that is undone by itself, or by what it undoes."""
    circle, undo = [described.event.name], described.undone_by
    while undo is not None and undo.event.name not in circle:
        circle.append(undo.event.name)
        following = names.described.get(undo.event.name)
        undo = None if following is None else following.undone_by
    if undo is None or described.undone_by is None or undo.event.name != circle[0]:
        return
    told = f"`{short(circle[0])}` undoes itself"
    if len(circle) > 1:
        told = f"Events undo each other: {' > '.join(map(short, [*circle, circle[0]]))}"
    hint = "Name an event that says that it is undone, and that is not undone itself."
    yield described.undone_by.event.node.finding(codes.NOT_UNDONE, f"{told}.", hint)


def _cycle_findings(names: _Roles) -> Iterator[Finding]:
    """Yield one finding for the first cycle none of whose events has a bound."""
    free = {name for name, one in names.described.items() if one.at_most is None}
    edges = {
        name: [event.name for answer in one.answers for event in answer.events if event.name in free]
        for name, one in names.described.items()
        if name in free
    }
    done = set[str]()
    for root in edges:
        path: list[str] = []
        work = [(root, iter(edges[root]))] if root not in done else []
        while work:
            name, rest = work[-1]
            if len(path) < len(work):
                path.append(name)
            following = next(rest, None)
            if following is None:
                done.add(name)
                work.pop()
                path.pop()
            elif following in path:
                circle = [*path[path.index(following) :], following]
                message = f"Events follow each other without a bound: {' > '.join(map(short, circle))}."
                hint = "Say with `atMost` how often each of them may happen in a flow."
                yield names.described[following].event.node.finding(codes.UNBOUNDED_CYCLE, message, hint)
                return
            elif following not in done:
                work.append((following, iter(edges[following])))


def _path_findings(names: _Roles, walked: Walked) -> Iterator[Finding]:
    """Yield what is wrong at the ends of the paths."""
    start = names.choreography.start
    if not walked.complete:
        message = f"It has too many paths: more than {MAX_STATES:,} sets of events can have come, or they are large."
        yield start.node.finding(codes.TOO_MANY_PATHS, message, "Split it, or have fewer answers to one event.")
        return
    if walked.endless is not None:
        last = names.described[walked.endless[-1]]
        message = f"After {_shown(walked.endless)} nothing more comes, and the flow has not ended."
        hint = f"Say what answers `{short(last.event.name)}`, or that it `ends` the flow."
        if last.answers:  # each names an event that has come, and is not waited for once more
            hint = "What answers it has come before: write one `with` wherever it is expected, or raise `atMost`."
        yield last.event.node.finding(codes.NO_END, message, hint)
    if walked.rivals is not None:
        path, well, undone = walked.rivals
        ends = f"`{names.publishers[well]}` by `{short(well)}`, and `{names.publishers[undone]}` by `{short(undone)}`"
        message = f"After {_shown(path)} either may end the flow, {ends}: both may happen."
        hint = "Let one of them publish both ends, so that one row decides which it is."
        yield names.described[undone].event.node.finding(codes.RIVAL_ENDS, message, hint)
    for name, path in walked.not_undone.items():
        described = names.described[name]
        if described.undone_by is None:
            message = f"Nothing undoes `{short(name)}` on the path {_shown(path)}."
            hint = "Add `undoneBy`, or `effect: false` if there is nothing to undo."
            yield described.event.node.finding(codes.NOT_UNDONE, message, hint)
        else:
            undo = described.undone_by
            message = f"`{short(undo.event.name)}` comes upon none of the events of the path {_shown(path)}."
            hint = "Add one of them to `upon`."
            yield undo.event.node.finding(codes.NOT_UNDONE, message, hint)
    for name, described in names.described.items():
        if name not in walked.reached:
            hint = "Say what it answers, or leave it out."
            yield described.event.node.finding(
                codes.NEVER_HAPPENS, f"`{short(name)}` follows from nothing that can happen.", hint
            )


def _shown(path: tuple[str, ...]) -> str:
    """Return a path in words; of a long one the end."""
    names = [short(event) for event in path]
    return " > ".join(names if len(names) <= SHOWN else ["...", *names[-SHOWN:]])
