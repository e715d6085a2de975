"""Sagas, Participants and RetryPolicies: what is asked for, and what the orchestrator says to it."""
