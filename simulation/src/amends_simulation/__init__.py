"""Whole worlds on a virtual clock: the orchestrator's runner and journal over a database and network that go wrong.

Called by `make soak` and by its tests.
"""
