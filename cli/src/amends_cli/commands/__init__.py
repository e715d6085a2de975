"""The commands of `amends`, one module per subject. Imported by `amends_cli.main`."""
