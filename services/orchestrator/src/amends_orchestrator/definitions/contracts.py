"""Gets a Participant's descriptors: those that came with it, else its server reflection; and keeps them fresh.

Called when a Participant is applied or checked, and by the refresher every minute.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from amends_saga.analysis import ParticipantView
from amends_saga.definition import Participant

from amends_orchestrator.calls.channels import Channels
from amends_orchestrator.calls.ports import ConfinementError
from amends_orchestrator.calls.reflection import ReflectionError, reflect


@dataclass(frozen=True, slots=True)
class Contract:
    """The descriptors of a participant (a serialised FileDescriptorSet), or why they are not known."""

    descriptors: bytes | None
    message: str = ""


async def contract_of(channels: Channels, participant: Participant, given: bytes | None) -> Contract:
    """The descriptors of a participant, from where its resource says."""
    known = given or participant.descriptors.inline
    if known:
        return Contract(known)
    if not participant.descriptors.reflection:
        return Contract(None, "its descriptors are to come with it, as a FileDescriptorSet, and did not")
    try:
        return Contract(await reflect(channels.to(participant.target), participant.service))
    except (ReflectionError, ConfinementError) as error:
        return Contract(None, f"its descriptors could not be read by reflection: {error}")


async def views_of(
    channels: Channels, participants: list[Participant], in_force: list[ParticipantView]
) -> list[ParticipantView]:
    """Participants that are only being checked, with the contracts that can be had for them now."""
    known = {(view.participant.metadata.full_name, view.participant.target): view.descriptors for view in in_force}

    async def view(participant: Participant) -> ParticipantView:
        before = known.get((participant.metadata.full_name, participant.target))
        if before is not None:
            return ParticipantView(participant, before)
        contract = await contract_of(channels, participant, None)
        return ParticipantView(participant, contract.descriptors, contract.message)

    return list(await asyncio.gather(*(view(participant) for participant in participants)))
