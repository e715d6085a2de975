"""The shop's gateway: the only service that faces the outside. It has no database."""
