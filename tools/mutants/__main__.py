"""The way in of `make mutants`."""

import sys

from mutants.command import main

sys.exit(main(sys.argv[1:]))
