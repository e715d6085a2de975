"""What is made of events, in a schema of its own, and built anew beside the one that serves.

A service that keeps such a projection brings what an event changes (`projection.Projection`) and the tables (its
migrations); when it is built, when it takes another's place and what is dropped is the same for all, and here.
"""
