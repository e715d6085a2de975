"""Proves the five promises of the barrier against a running service, whoever wrote it.

`wire` makes calls, `requests` fills them, `cases` asks the questions, `verdict` says what an answer proves.
Called by `amends probe`.
"""
