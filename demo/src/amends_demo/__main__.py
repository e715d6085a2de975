"""`python -m amends_demo {demo,up,down,status,logs,audit}`, called by the Makefile."""

import sys

from amends_demo.commands import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
