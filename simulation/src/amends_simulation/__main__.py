"""Replays seeds of the simulation: `python -m amends_simulation --seed 7`, or many with `--seeds 1000`."""

import sys

from amends_simulation.seeds import main

if __name__ == "__main__":
    sys.exit(main())
