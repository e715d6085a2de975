"""The shop's identity service: who may sign in, and the tokens that show it."""
