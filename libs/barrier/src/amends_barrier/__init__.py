"""The barrier that makes a Python gRPC service a safe participant of sagas."""
