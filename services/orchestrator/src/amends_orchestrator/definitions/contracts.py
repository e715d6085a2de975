"""Gets a Participant's descriptors: those that came with it, else those of its server reflection.

Called when a Participant is applied or checked, and by the refresher every minute.
"""

from __future__ import annotations

from dataclasses import dataclass

from amends_chassis.reflection import ReflectionError, reflect

from amends_orchestrator.calls.channels import Channels
from amends_orchestrator.calls.ports import ConfinementError


@dataclass(frozen=True, slots=True)
class Contract:
    """The descriptors of a participant (a serialised FileDescriptorSet), or why they are not known."""

    descriptors: bytes | None
    message: str = ""


async def contract_of(channels: Channels, target: str, service: str, *, reflection: bool) -> Contract:
    """Return the descriptors of a participant that came without any, from its server if its resource says so."""
    if not reflection:
        return Contract(None, "its descriptors are to come with it, as a FileDescriptorSet, and did not")
    try:
        return Contract(await reflect(channels.to(target), service))
    except (ReflectionError, ConfinementError) as error:
        return Contract(None, f"its descriptors could not be read by reflection: {error}")
