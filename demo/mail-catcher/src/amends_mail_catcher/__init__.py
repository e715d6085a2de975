"""A mail server that delivers nothing: it keeps what it gets and shows it. For development and kind alone."""
