"""The shop's inventory service: how much of each article there is, and for whom it is kept."""
