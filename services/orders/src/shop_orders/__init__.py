"""The shop's orders service: what a customer asked for, and how far it got."""
