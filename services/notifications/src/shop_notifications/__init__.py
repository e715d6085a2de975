"""The notifications service: writes to customers what became of their orders."""
