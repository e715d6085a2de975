"""Reads the YAML and JSON files that people name on the command line, without losing line numbers.

Called by every command that takes files. There is one reader of YAML, `amends_saga.definition.compose`: it bounds what
a text may hold, and says what is wrong with it. Every document travels as text, with blank lines where the others of
its file were, so that a finding of the orchestrator names the line that the person sees.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amends_cli.failure import CliError, usage

if TYPE_CHECKING:
    from amends_saga.definition import Node

SUFFIXES = (".yaml", ".yml", ".json")
ORDER = {"Participant": 0, "RetryPolicy": 1, "Saga": 2, "SagaRun": 3, "Choreography": 4}
"""What others refer to comes first."""


class ManifestUnreadableError(CliError):
    """A text with something other than Amends resources; `amends_saga.definition.read` says what and where."""


@dataclass(frozen=True, slots=True)
class Text:
    """One file of resources: its name and its text."""

    source: str
    text: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """One document of a file, read as a resource."""

    source: str
    text: str
    """The document alone, on the lines that it has in its file."""
    kind: str
    name: str
    namespace: str
    content: dict[str, Any]


def read_files(paths: Iterable[str]) -> list[Text]:
    """Read files, the manifests in folders (YAML and JSON), and `-` for standard input.

    Raises CliError (wrong use).
    """
    texts = [text for path in paths for text in _read(path)]
    if not texts:
        raise usage("there is nothing to read", "Name a YAML file, or a folder with some.")
    return texts


def _read(name: str) -> Iterator[Text]:
    if name == "-":
        yield Text("standard input", read_input("standard input"))
        return
    path = Path(name)
    try:
        inside = sorted(path.rglob("*")) if path.is_dir() else None
    except OSError as error:
        raise usage(f"{name} cannot be read: {error.strerror}") from None
    if inside is None:
        yield Text(name, read_text(path))
        return
    for file in inside:
        if file.suffix in SUFFIXES and file.is_file():
            yield from (text for text in _read(str(file)) if not _is_data(file, text.text))


def _is_data(file: Path, text: str) -> bool:
    """Return whether a file that lies beside manifests is none of them, such as the input of a run."""
    return file.suffix == ".json" and '"apiVersion"' not in text and '"kind"' not in text


def read_text(path: Path) -> str:
    """Return the text of a file as it is, line ends included. Raises CliError (wrong use)."""
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise usage(f"{path} is not there", "Look at the path; `-` reads standard input.") from None
    except UnicodeDecodeError:
        raise usage(f"{path} cannot be read: it is not UTF-8 text") from None
    except OSError as error:
        raise usage(f"{path} cannot be read: {error.strerror}") from None


def read_input(what: str) -> str:
    """Return the text of standard input. Raises CliError (wrong use)."""
    if sys.stdin is None:
        raise usage(f"{what} cannot be read: standard input is closed")
    try:
        return sys.stdin.read()
    except UnicodeDecodeError:
        raise usage(f"{what} cannot be read: it is not UTF-8 text") from None
    except OSError as error:
        raise usage(f"{what} cannot be read: {error.strerror}") from None


def split(texts: Iterable[Text]) -> list[Manifest]:
    """Split files into their resources, those first that others refer to. Raises ManifestUnreadableError."""
    found = [manifest for text in texts for manifest in _documents(text)]
    return sorted(found, key=lambda manifest: ORDER.get(manifest.kind, len(ORDER)))


def content(text: str) -> dict[str, Any]:
    """Return the first resource of a text that is in force already; empty when it holds none."""
    from amends_saga.definition.nodes import NodeKind, compose, to_json

    roots, _ = compose("", text)
    return next((to_json(root) for root in roots if root.kind is NodeKind.MAPPING), {})


def _documents(text: Text) -> Iterator[Manifest]:
    from amends_saga.definition.documents import is_foreign, items_of
    from amends_saga.definition.nodes import compose, to_json

    roots, findings = compose(text.source, text.text)
    if findings:
        raise ManifestUnreadableError(f"{text.source}: {findings[0].message}")
    for root in items_of(roots):
        if root.is_null or is_foreign(root):
            continue
        value = to_json(root)
        metadata = value.get("metadata") if isinstance(value, dict) else None
        if not isinstance(value, dict) or not isinstance(metadata, dict) or value.get("kind") not in ORDER:
            raise ManifestUnreadableError(f"{text.source}:{root.place().line}: this document is no resource of ours")
        yield Manifest(
            text.source,
            _alone(root),
            str(value.get("kind", "")),
            str(metadata.get("name", "")),
            str(metadata.get("namespace", "")),
            value,
        )


def _alone(root: "Node") -> str:
    """Return a document's text without the others of its file, where it stands in it."""
    whole = root.source.text
    start = whole.rfind("\n", 0, root.start) + 1
    # Before it on its line may stand a separator, the dash of a list, or another item.
    before = " " * (root.start - start)
    return "\n" * whole.count("\n", 0, start) + before + whole[root.start : root.end]
