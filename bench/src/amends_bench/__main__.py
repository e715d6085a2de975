"""`python -m amends_bench sagas-vs-dbos latency ...`: see `command`."""

import sys

from amends_bench.command import main

if __name__ == "__main__":
    sys.exit(main())
