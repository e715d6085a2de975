"""Says where the contracts of events break a rule, but for the exceptions that are listed. Called by `__main__`."""

import sys
import tomllib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from amends_contracts import descriptor_set
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from event_rules.compare import BrokenRule, EventContracts, compare
from event_rules.releases import ROOT, contracts_at, golden, tagged

EXCEPTIONS = Path(__file__).with_name("exceptions.toml")


def excepted(file: Path) -> dict[tuple[str, str], str]:
    """Return the reasons of the exceptions, by rule and place. Raises ValueError for one without a reason."""
    found = {}
    for entry in tomllib.loads(file.read_text(encoding="utf-8")).get("exception", []):
        if not str(entry.get("reason", "")).strip():
            raise ValueError(f"{file.name}: the exception of {entry.get('where')} has no reason")
        found[entry["rule"], entry["where"]] = entry["reason"]
    return found


def judged(
    new: FileDescriptorSet, releases: Iterable[tuple[str, FileDescriptorSet]], exceptions: dict[tuple[str, str], str]
) -> tuple[list[str], int]:
    """Return the lines to print for what is broken, and with how many releases the contracts were compared."""
    current, found, count = EventContracts.of(new), list[tuple[str, BrokenRule]](), 0
    for name, files in releases:
        found += [(name, one) for one in compare(EventContracts.of(files), current)]
        count += 1
    used = {(one.rule.value, one.where) for _, one in found}
    lines = [
        f"{one.where} {one.text} ({one.rule}, against {name})"
        for name, one in found
        if (one.rule.value, one.where) not in exceptions
    ]
    stale = [f"{where} is excepted from {rule}, and breaks it nowhere" for rule, where in exceptions.keys() - used]
    return lines + sorted(stale), count


def main(arguments: list[str]) -> int:
    """Compare with all releases that matter, and with REVISION; return the exit code."""
    releases = list(golden())
    releases += [
        (name, contracts_at(ROOT, name)) for name in dict.fromkeys([*tagged(ROOT, datetime.now(UTC)), *arguments])
    ]
    lines, count = judged(descriptor_set(), releases, excepted(EXCEPTIONS))
    for line in lines:
        sys.stderr.write(f"events: {line}\n")
    if not lines:
        sys.stdout.write(f"events: what {count} releases may have left in a log can be read\n")
    return 1 if lines else 0
