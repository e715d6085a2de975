"""Benchmarks of Amends: every subject beside its peer in one run, in alternating rounds. Nothing imports this."""
