"""`python -m amends_embedded FOLDER [DATABASE]`: a Postgres for development, until Ctrl-C."""

import sys

from amends_embedded.serve import main

if __name__ == "__main__":
    sys.exit(main())
