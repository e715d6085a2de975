"""Pinned routes as plain values, to be sent to the worker process and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from amends_saga.analysis import Pin


def write_pins(pins: Mapping[tuple[str, str], Pin]) -> list[list[str]]:
    """Return namespace, service, Participant and the saga that names it, for each pin."""
    return [[*key, pin.participant, pin.named_by] for key, pin in sorted(pins.items(), key=lambda item: item[0])]


def read_pins(rows: Iterable[list[str]]) -> dict[tuple[str, str], Pin]:
    """Return the pins that `write_pins` wrote."""
    return {(row[0], row[1]): Pin(row[2], row[3]) for row in rows}
