"""The databases, the broker and the services that an audit is given, or that `make up` wrote down.

Called by `commands.audit`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amends_cli.failure import usage

LEFT_BY_UP = Path(".amends") / "state.json"


@dataclass(frozen=True, slots=True)
class AuditedDatabases:
    """The databases of an installation, and its broker."""

    orchestrator: str | None
    participants: dict[str, str]
    """By protobuf service."""
    others: dict[str, str]
    broker: str
    addresses: Sequence[str] = ()
    """Of services that may export what they keep."""

    @property
    def by_name(self) -> dict[str, str]:
        """Return all of them, each once."""
        named = {"the orchestrator": self.orchestrator or "", **self.participants, **self.others}
        return {name: url for url, name in {url: name for name, url in reversed(named.items())}.items() if url}


def by_service(given: Sequence[str]) -> dict[str, str]:
    """Read SERVICE=URL texts. Raises CliError (wrong use)."""
    for text in given:
        service, _, url = text.partition("=")
        if "." not in service or "://" not in url:
            raise usage(f"--participant takes SERVICE=URL, not `{service}`", "e.g. shop.v1.Payments=postgresql://...")
    return dict(text.split("=", 1) for text in given)


def by_name(given: Sequence[str]) -> dict[str, str]:
    """Read NAME=URL texts. Raises CliError (wrong use)."""
    for text in given:
        name, _, url = text.partition("=")
        if not name or "://" not in url:
            raise usage(f"--service takes NAME=URL, not `{name}`", "e.g. notifications=postgresql://...")
    return dict(text.split("=", 1) for text in given)


def left_by_up(given: AuditedDatabases) -> AuditedDatabases:
    """Return the databases that `make up` wrote down; what was given by hand replaces those of the same name.

    Raises CliError (wrong use) when it did not.
    """
    path = _state_file()
    processes = json.loads(path.read_text(encoding="utf-8"))["processes"]
    journals = [process["database"] for name, process in processes.items() if name.startswith("orchestrator")]
    if not journals:
        raise usage(f"{path} names no orchestrator", "Give --database and --participant.")
    participants = {process["service"]: process["database"] for process in processes.values() if process.get("service")}
    others = {name: process["database"] for name, process in processes.items() if _is_other(name, process)}
    address = processes.get("nats", {}).get("address")
    return AuditedDatabases(
        journals[0],
        participants | given.participants,
        others | given.others,
        given.broker or (f"nats://{address}" if address else ""),
        tuple(process["address"] for name, process in processes.items() if name in others or process.get("service")),
    )


def _state_file() -> Path:
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / LEFT_BY_UP).is_file():
            return folder / LEFT_BY_UP
    raise usage("no database was given", "Give --database and --participant, or run `make up` first.")


def _is_other(name: str, process: Mapping[str, Any]) -> bool:
    """Return whether a process has a database and is no participant."""
    return bool(process["database"]) and not process.get("service") and name != "postgres"
