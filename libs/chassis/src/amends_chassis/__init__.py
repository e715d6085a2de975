"""The parts that every service needs: server, clients, errors, telemetry, settings, database."""

import os

# Before the first import of grpc: its core writes to standard error past every log setting, each GOAWAY as a line.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# Its handlers of a fork run in every child, before the child is a program, and crash some of them.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
