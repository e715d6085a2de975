"""The monitor: where choreographies stand, seen from their events."""
