"""Runs in memory: driven by the engine, written by the journal, called through the call path."""
