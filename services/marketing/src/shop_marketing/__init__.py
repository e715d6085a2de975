"""The shop's marketing service: consent, how customers want to be written to, and campaigns."""
