"""Work whose size a stranger chooses, in a process of its own that is limited in time and memory and may die."""
