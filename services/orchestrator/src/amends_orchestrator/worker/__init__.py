"""Work whose size a stranger chooses, in a process of its own: bounded in time and memory, and free to die."""
