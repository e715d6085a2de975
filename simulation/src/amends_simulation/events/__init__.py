"""Worlds in which events are published and consumed, over the real relay and the real consumer."""
