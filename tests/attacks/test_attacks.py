"""Attacks in turn on one orchestrator while honest sagas run: it answers, keeps its lease and its memory."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from .attacks import ATTACKS, QUICK, Attack
from .scene import ANSWERS_WITHIN, MEMORY, Watch, scene


async def harm(url: str, folder: Path, attacks: Sequence[Attack], *, orders_a_second: int) -> dict[str, list[str]]:
    """Return what each attack did to the orchestrator; nothing for one that did nothing."""
    seen: dict[str, list[str]] = {}
    async with scene(url, folder, orders_a_second=orders_a_second) as made:
        for attack in attacks:
            made.watch = watch = Watch()
            await attack(made)
            await made.honest_orders(2 * orders_a_second)  # what an attack leaves behind is its own, not the next one's
            seen[attack.__name__] = judge(watch)
    return {attack: found for attack, found in seen.items() if found}


def judge(watch: Watch) -> list[str]:
    """Return what an attack did to the orchestrator."""
    found = list(watch.failed)
    if watch.slowest > ANSWERS_WITHIN.total_seconds():
        found.append(f"health took {watch.slowest:.1f} s")
    if watch.memory > MEMORY:
        found.append(f"{watch.memory} MiB of memory")
    if not watch.leased:
        found.append("the lease ran out")
    if not watch.completed:
        found.append("no honest saga ended")
    return found


async def test_the_quickest_attacks_harm_nobody(database_url: str, tmp_path: Path):
    assert await harm(database_url, tmp_path, QUICK, orders_a_second=5) == {}


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_no_attack_harms_anybody(database_url: str, tmp_path: Path):
    assert await harm(database_url, tmp_path, ATTACKS, orders_a_second=20) == {}
