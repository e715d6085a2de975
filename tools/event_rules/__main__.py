"""Starts the check: `python -m event_rules [REVISION]`."""

import sys

from event_rules.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
