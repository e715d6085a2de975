"""Findings about Participants and RetryPolicies themselves, independent of sagas.

Called by `checker` for the documents that are checked, and by the orchestrator when one of them is applied.
"""

from collections.abc import Iterator, Sequence

from amends_saga import codes
from amends_saga.analysis import ParticipantView
from amends_saga.analysis.resolve import FORBIDDEN, SetCache, missing_types
from amends_saga.definition import Participant, Resources
from amends_saga.descriptors import ContractSet, DescriptorError, resolve_facts
from amends_saga.findings import Finding, choices

MAX_MISSING = 20
"""The most findings about undefined types for one Participant."""


def participant_findings(read: Resources, views: Sequence[ParticipantView], sets: SetCache) -> Iterator[Finding]:
    """Yield findings about the Participants of the documents, as far as their contracts are known."""
    own = {id(participant) for participant in read.participants}
    for view in views:
        participant = view.participant
        if id(participant) not in own:
            continue
        node = participant.service_node
        if participant.service.startswith(FORBIDDEN):
            message = f"No saga may call `{participant.service}`."
            yield node.finding(codes.FORBIDDEN_SERVICE, message, "Name a service of your own.")
            continue
        if view.descriptors is None:
            continue
        try:
            contract = sets.get(view.descriptors)
        except DescriptorError as error:
            yield node.finding(codes.DESCRIPTORS_BROKEN, str(error), "Give the output of protoc --descriptor_set_out.")
            continue
        if not contract.has_service(participant.service):
            message = f"The contract of Participant {participant.metadata.full_name} has no `{participant.service}`."
            hint = choices(participant.service, contract.symbols, "Give the descriptors of this service.")
            yield node.finding(codes.UNKNOWN_SERVICE, message, hint)
            continue
        yield from _missing_types(participant, contract)
        yield from _entries(participant, contract)


def _missing_types(participant: Participant, contract: ContractSet) -> Iterator[Finding]:
    missing = (
        refusal
        for method in contract.methods(participant.service)
        if participant.allows(method.name)
        for refusal in missing_types(participant, contract, method)
    )
    for refusal in list(dict.fromkeys(missing))[:MAX_MISSING]:
        yield participant.service_node.finding(refusal.code, refusal.message, refusal.hint)


def _entries(participant: Participant, contract: ContractSet) -> Iterator[Finding]:
    names = {method.name for method in contract.methods(participant.service)}
    for entry in participant.methods.values():
        method = contract.method(participant.service, entry.name)
        if method is None:
            message = f"`{participant.service}` has no method `{entry.name}`."
            yield entry.node.finding(codes.ENTRY_UNKNOWN, message, choices(entry.name, names, "Leave it out."))
            continue
        for sentence in resolve_facts(method, entry)[1]:
            message = f"{sentence[:1].upper()}{sentence[1:]}."
            hint = "Correct the Participant, or the contract: both must say the same."
            yield entry.node.finding(codes.CONTRACT_DISAGREES, message, hint)
        if entry.compensated_by and entry.compensated_by not in names:
            message = f"`{entry.name}` says that it is undone by `{entry.compensated_by}`, which does not exist."
            yield entry.node.finding(codes.UNDONE_BY_NOTHING, message, choices(entry.compensated_by, names))


def policy_findings(read: Resources, views: Sequence[ParticipantView]) -> Iterator[Finding]:
    """Yield findings about RetryPolicies that select nothing; only if any Participants are known."""
    services = {view.participant.service for view in views}
    services |= {name for view in views for name, _ in view.participant.calls}
    if not services:
        return
    for policy in read.policies:
        for name, node in policy.participants:
            if name not in services and name != "*":
                message = f"No Participant serves `{name[:120]}`: the policy selects nothing there."
                yield node.finding(codes.POLICY_IDLE, message, choices(name, services, "Name a service."))
