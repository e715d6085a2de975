"""SagaRuns: start, mirror, decide, undo, forget."""
