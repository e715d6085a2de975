"""`python -m amends_bench p1 p2 ...`: see `command`."""

import sys

from amends_bench.command import main

if __name__ == "__main__":
    sys.exit(main())
