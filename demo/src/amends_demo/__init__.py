"""The shop on one machine: start, stop, and the stories of make demo."""
