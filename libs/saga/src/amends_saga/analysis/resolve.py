"""Finds the Participant that serves a service for a namespace, and the method that a step names.

The same rules apply when a definition is checked, when a run starts, and at each call, because grants can be revoked.
Called by the analysis and by the orchestrator.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from amends_resilience import NamedPolicy, match
from amends_resilience import PolicyConflict as PolicyConflict
from google.protobuf.descriptor_pb2 import MethodDescriptorProto

from amends_saga import codes
from amends_saga.analysis.model import Method, ParticipantView
from amends_saga.definition import CallSpec, Participant, Saga
from amends_saga.descriptors import ContractSet, DescriptorError, Facts, parse_set, resolve_facts
from amends_saga.findings import Code, OnFinding, choices

FORBIDDEN = ("grpc.reflection.", "grpc.channelz.", "amends.saga.v1.")
NEAR = 0.75
"""The similarity, from 0 to 1, from which a service's name counts as another one misspelt."""
_MENDED_ELSEWHERE = (
    codes.DESCRIPTORS_BROKEN,
    codes.DESCRIPTORS_UNKNOWN,
    codes.NOT_GRANTED,
    codes.PARTICIPANT_CONFLICT,
)
"""Codes of what is wrong with a Participant or its contract, or with what the saga says about it in one place."""
_WRITE_ONE = "Write a Participant that has this `service`."
MAX_NAMES = 5
"""The most Participants that a finding about a conflict names."""


@dataclass(frozen=True, slots=True)
class ResolveRefusal:
    """Why a call cannot be made: the code of the finding, what is wrong, and how to mend it."""

    code: Code
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Pin:
    """The Participant through which a namespace's sagas reach a service, and the saga that names it."""

    participant: str
    named_by: str = ""
    """The saga of the namespace that names it; empty when it was the only one at the time."""


def pin_of(saga: Saga, service: str, routes: Mapping[tuple[str, str], Pin]) -> Pin | None:
    """Return the pin that applies to a saga: the Participant it names itself, else that of its namespace."""
    named = saga.participants.get(service)
    if named is not None:
        return Pin(named, saga.metadata.name)
    return routes.get((saga.metadata.namespace, service))


def resolve(
    service: str, namespace: str, participants: Iterable[Participant], pin: Pin | None = None
) -> Participant | ResolveRefusal:
    """Return the Participant that sagas of `namespace` reach `service` through, or why there is none.

    A pinned Participant is never replaced by one of another namespace. It is replaced by a Participant of the saga's
    own namespace, unless a saga of the namespace names which one it means.
    """
    if service.startswith(FORBIDDEN):
        return ResolveRefusal(codes.FORBIDDEN_SERVICE, f"No saga may call `{service}`.", "Call a service of your own.")
    known = list(participants)
    serving = [found for found in known if found.service == service]
    pinned = _pinned(serving, pin)
    own = [found for found in serving if found.metadata.namespace == namespace]
    if pin is not None and not pinned and (pin.named_by or not own):
        return _away(service, namespace, pin)
    if not serving:
        return _unserved(service, known)
    candidates = pinned if _stays(pinned, own, pin) else own or _granting(serving, namespace)
    if len(candidates) > 1:
        return _several(service, candidates)
    granting = _granting(candidates, namespace)
    return granting[0] if granting else _not_granted((candidates or serving)[0], namespace)


def _pinned(serving: Sequence[Participant], pin: Pin | None) -> list[Participant]:
    return [found for found in serving if pin is not None and found.metadata.full_name == pin.participant]


def _granting(serving: Sequence[Participant], namespace: str) -> list[Participant]:
    return [found for found in serving if found.grants(namespace)]


def _unserved(service: str, known: Sequence[Participant]) -> ResolveRefusal:
    near = next((participant.service for participant in known if _is_near(service, participant.service)), None)
    hint = f"Did you mean `{near}`?" if near else _WRITE_ONE
    return ResolveRefusal(codes.UNKNOWN_PARTICIPANT, f"There is no Participant for `{service}`.", hint)


def _not_granted(participant: Participant, namespace: str) -> ResolveRefusal:
    name = participant.metadata.full_name
    message = f"Participant {name} does not list the namespace `{namespace}` among its callers."
    return ResolveRefusal(codes.NOT_GRANTED, message, f"Have its owner add `{namespace}` to `callers`.")


def _several(service: str, candidates: Sequence[Participant]) -> ResolveRefusal:
    names = sorted(found.metadata.full_name for found in candidates)[:MAX_NAMES]
    message = f"`{service}` is served by several Participants: {', '.join(names)}."
    hint = f"Name the one that you mean in the saga, e.g. `participants: {{{service}: {names[0]}}}`, or leave one."
    return ResolveRefusal(codes.PARTICIPANT_CONFLICT, message, hint)


def _is_near(service: str, other: str) -> bool:
    """Return whether a service was probably meant: service names look alike without meaning each other."""
    from difflib import SequenceMatcher  # only a mistake needs it

    mine, theirs = (name.rpartition(".")[2].removesuffix("Service").lower() for name in (service, other))
    return SequenceMatcher(None, mine, theirs).ratio() >= NEAR


def _stays(pinned: Sequence[Participant], own: Sequence[Participant], pin: Pin | None) -> bool:
    """Return whether a pin applies: a foreign Participant that no saga names gives way to one of the own namespace."""
    if pin is None or not pinned:
        return False
    return bool(pin.named_by) or not own or pinned[0] in own


def _away(service: str, namespace: str, pin: Pin) -> ResolveRefusal:
    message = f"Participant {pin.participant}, which `{namespace}` reaches `{service}` through, is not there."
    hint = "Have it applied again, or name another one in the saga's `participants`."
    return ResolveRefusal(codes.UNKNOWN_PARTICIPANT, message, hint)


class Methods:
    """Resolves the calls of one saga, each method once; `report` gets a finding for each place that calls it."""

    def __init__(
        self,
        saga: Saga,
        views: Sequence[ParticipantView],
        policies: Sequence[NamedPolicy],
        sets: "SetCache",
        report: OnFinding,
        routes: Mapping[tuple[str, str], Pin],
    ) -> None:
        self._saga, self._namespace, self._routes = saga, saga.metadata.namespace, routes
        self._views, self._policies = views, policies
        self._sets, self._report = sets, report
        self._services: dict[str, tuple[Participant, ContractSet] | ResolveRefusal] = {}
        self._found: dict[tuple[str, str], tuple[Method | None, list[ResolveRefusal]]] = {}
        self._told = set[ResolveRefusal]()
        self.complete = True
        """False when the contract of some service is missing."""
        self.sets: dict[str, tuple[str, ContractSet]] = {}
        """The contracts of the services that were resolved, by service, each with its Participant's name."""

    def find(self, call: CallSpec) -> Method | None:
        """Return the method that a call names, None (and a finding) when it cannot be called."""
        if call.service not in self._services:
            self._services[call.service] = self._service(call.service)
        service = self._services[call.service]
        if isinstance(service, ResolveRefusal):
            self.complete = False
            self._tell(call, service)
            return None
        key = (call.service, call.method)
        if key not in self._found:
            self._found[key] = self._method(call, *service)
        method, refusals = self._found[key]
        for refusal in refusals:
            self._tell(call, refusal)
        return method

    def _tell(self, call: CallSpec, refusal: ResolveRefusal) -> None:
        """Report why a call cannot be made; what is mended in one place is told once, not for each call."""
        if refusal.code in _MENDED_ELSEWHERE or refusal.hint == _WRITE_ONE:
            if refusal in self._told:
                return
            self._told.add(refusal)
        self._report(call.node.finding(refusal.code, refusal.message, refusal.hint))

    def _service(self, service: str) -> tuple[Participant, ContractSet] | ResolveRefusal:
        named, agreed = self._saga.participants.get(service), self._routes.get((self._namespace, service))
        others = agreed is not None and agreed.named_by not in ("", self._saga.metadata.name)
        if agreed is not None and others and named not in (None, agreed.participant):
            message = f"Saga {agreed.named_by} of this namespace names {agreed.participant} for `{service}`."
            hint = "Name the same one: a namespace reaches a service through one Participant."
            return ResolveRefusal(codes.PARTICIPANT_CONFLICT, message, hint)
        pin = pin_of(self._saga, service, self._routes)
        found = resolve(service, self._namespace, (view.participant for view in self._views), pin)
        if not isinstance(found, Participant):
            return found
        name = found.metadata.full_name
        view = next(view for view in self._views if view.participant is found)
        data = view.descriptors
        if data is None:
            why = f": {view.why}" if view.why else ""
            hint = "Give a FileDescriptorSet, or make the service reachable and switch its reflection on."
            message = f"The descriptors of Participant {name} ({found.target}) are not known{why}."
            return ResolveRefusal(codes.DESCRIPTORS_UNKNOWN, message, hint)
        try:
            contract = self._sets.get(data)
        except DescriptorError as error:
            hint = f"Give Participant {name} the output of protoc --descriptor_set_out."
            return ResolveRefusal(codes.DESCRIPTORS_BROKEN, str(error), hint)
        if not contract.has_service(service):
            hint = choices(service, contract.symbols, "Give the Participant the descriptors of this service.")
            return ResolveRefusal(
                codes.UNKNOWN_SERVICE, f"The contract of Participant {name} has no service `{service}`.", hint
            )
        self.sets[service] = name, contract
        return found, contract

    def _method(
        self, call: CallSpec, participant: Participant, contract: ContractSet
    ) -> tuple[Method | None, list[ResolveRefusal]]:
        method = contract.method(call.service, call.method)
        names = {found.name for found in contract.methods(call.service)}
        if method is None:
            message = f"`{call.service}` has no method `{call.method}`."
            return None, [ResolveRefusal(codes.UNKNOWN_METHOD, message, choices(call.method, names))]
        if method.client_streaming or method.server_streaming:
            message = f"`{call.method}` is a stream, a step is one request and one response."
            return None, [ResolveRefusal(codes.NOT_UNARY, message, "Call a unary method.")]
        refusals = list(dict.fromkeys(missing_types(participant, contract, method)))
        if refusals:
            return None, refusals
        if not participant.allows(call.method):
            message = f"Participant {participant.metadata.full_name} does not allow `{call.method}`."
            hint = f"Have its owner add `{call.method}` to `methods`."
            refusals.append(ResolveRefusal(codes.NOT_ALLOWED, message, hint))
        policy = match(self._policies, call.service, call.method)
        if isinstance(policy, PolicyConflict):
            hint = "Make one of them more specific, or take the method out of the others."
            refusals.append(ResolveRefusal(codes.POLICY_CONFLICT, str(policy), hint))
        found = Method(
            participant,
            call.method,
            contract.message_of(call.service, method.input_type) or "",
            contract.message_of(call.service, method.output_type) or "",
            self._facts(call, participant, method, names),
            None if isinstance(policy, PolicyConflict) else policy,
        )
        return found, refusals

    def _facts(
        self, call: CallSpec, participant: Participant, method: MethodDescriptorProto, names: Collection[str]
    ) -> Facts:
        """Return what contract and Participant promise; disagreements are reported at the Participant."""
        entry = participant.methods.get(call.method)
        facts, wrong = resolve_facts(method, entry)
        for sentence in wrong:
            node = entry.node if entry is not None else call.node
            message = f"{sentence[:1].upper()}{sentence[1:]}."
            hint = "Correct the Participant, or the contract: both must say the same."
            self._report(node.finding(codes.CONTRACT_DISAGREES, message, hint))
        if facts.compensated_by and facts.compensated_by not in names:
            message = f"`{call.method}` says that it is undone by `{facts.compensated_by}`, which does not exist."
            node = entry.node if entry is not None and entry.compensated_by else call.node
            self._report(node.finding(codes.UNDONE_BY_NOTHING, message, choices(facts.compensated_by, names)))
        return facts


def missing_types(
    participant: Participant, contract: ContractSet, method: MethodDescriptorProto
) -> Iterator[ResolveRefusal]:
    """Yield why a method cannot be called: the types of its messages or fields that are not defined."""
    owner = f"the descriptors of Participant {participant.metadata.full_name}"
    hint = "Give a FileDescriptorSet made by buf or `protoc --include_imports`."
    for type_name, what in ((method.input_type, "takes"), (method.output_type, "answers with")):
        found = contract.message_of(participant.service, type_name)
        if found is None:
            message = f"`{method.name}` {what} `{type_name.lstrip('.')}`, which {owner} do not define."
            yield ResolveRefusal(codes.DESCRIPTORS_BROKEN, message, hint)
            continue
        for where, missing in contract.dangling(participant.service, found):
            message = f"`{where}` is of type `{missing}`, which {owner} do not define."
            yield ResolveRefusal(codes.DESCRIPTORS_BROKEN, message, hint)


class SetCache:
    """Parsed descriptor sets: participants often share one, and parsing it again takes most of the time."""

    def __init__(self) -> None:
        self._parsed: dict[bytes, ContractSet | str] = {}

    def get(self, data: bytes) -> ContractSet:
        """Return the parsed set of the bytes. Raises DescriptorError when they are not one."""
        known = self._parsed.get(data)
        if known is None:
            try:
                known = ContractSet(parse_set(data))
            except DescriptorError as error:
                known = str(error)
            self._parsed[data] = known
        if isinstance(known, str):
            raise DescriptorError(known)
        return known
