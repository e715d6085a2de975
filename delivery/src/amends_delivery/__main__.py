"""`python -m amends_delivery`: what the Makefile's targets for images and for kind call."""

import sys

from amends_delivery.command import main

if __name__ == "__main__":
    sys.exit(main())
