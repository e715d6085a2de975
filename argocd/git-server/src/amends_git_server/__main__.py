"""Starts the git server: `python -m amends_git_server`."""

from amends_git_server.serving import main

if __name__ == "__main__":
    main()
