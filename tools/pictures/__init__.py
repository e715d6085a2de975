"""Draws the pictures of the documentation. Run by `make pictures`; a test compares the files with what it draws."""
