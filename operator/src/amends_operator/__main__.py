"""The composition root of the operator: `python -m amends_operator`."""

import sys

from amends_operator.assemble import main
from amends_operator.settings import Settings

if __name__ == "__main__":
    sys.exit(main(Settings()))
