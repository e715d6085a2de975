"""The saga orchestrator: engine, Postgres journal, gRPC API."""
