"""The schema of the monitor's database, one file for each step."""
