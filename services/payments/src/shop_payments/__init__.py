"""The shop's payments service: a double-entry ledger of what customers paid and got back."""
