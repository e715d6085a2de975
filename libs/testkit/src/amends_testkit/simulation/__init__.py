"""Sagas without processes: plans in one line, one owner driven by hand, and whole worlds on a virtual clock.

Called by the tests of the engine and the explorer, by the script that records golden journals, and by the simulation.
"""
