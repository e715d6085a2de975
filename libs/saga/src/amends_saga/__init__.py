"""The saga engine, its definitions and their checker. Pure: no I/O, clock or randomness."""
