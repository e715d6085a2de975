"""`python -m amends_cli`: the same as `amends`, for callers that know the interpreter and not the path."""

from amends_cli.main import main

if __name__ == "__main__":
    main()
