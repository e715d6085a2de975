"""Sagas without processes: plans in one line, one owner driven by hand, golden journals, and an engine with a mistake.

Called by the tests of the engine and the explorer, by the script that records golden journals, and by the simulation.
"""
