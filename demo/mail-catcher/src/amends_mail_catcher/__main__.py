"""Starts the mail catcher: `python -m amends_mail_catcher`."""

from amends_mail_catcher.serving import main

if __name__ == "__main__":
    main()
