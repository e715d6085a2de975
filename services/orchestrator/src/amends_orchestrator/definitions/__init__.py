"""Sagas, Participants and RetryPolicies: kept in Postgres, in force in memory, pinned by digest for runs."""
