"""The saga engine: definition, checker, decide and evolve. Pure: no I/O, clock or randomness."""
