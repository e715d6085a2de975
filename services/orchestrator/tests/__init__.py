"""Tests of the orchestrator, on real Postgres and real gRPC servers."""
