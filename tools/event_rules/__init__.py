"""The rules that contracts of events keep beside `buf breaking`, because a log is older than the code that reads it.

* A contract can read every release whose events may still be in a log, not only the last one.
* A field may become unused, and is never used again for something else; nothing is required of it later.
* An enum or a oneof grows only with a stated meaning for those who do not know what is new.

Run by `make breaking`: `python -m event_rules [REVISION]`.
"""
