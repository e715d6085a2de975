"""Reads the YAML and JSON files that people name on the command line, without losing line numbers.

Called by `check` and `apply`. Every document travels as text, with blank lines where the others of its file were, so
that a finding of the orchestrator names the line that the person sees.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amends_cli.failure import Failure, usage

SUFFIXES = (".yaml", ".yml", ".json")
ORDER = {"Participant": 0, "RetryPolicy": 1, "Saga": 2, "SagaRun": 3}
"""What others refer to comes first."""


class Unreadable(Failure):
    """A text that holds something else than resources of ours; `amends_saga.definition.read` tells what and where."""


@dataclass(frozen=True, slots=True)
class Text:
    """One file as it is."""

    source: str
    text: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """One document of a file."""

    source: str
    text: str
    """The document alone, on the lines that it has in its file."""
    kind: str
    name: str
    namespace: str
    content: dict[str, Any]


def read_files(paths: Iterable[str]) -> list[Text]:
    """Reads files, the YAML and JSON files of folders, and `-` for standard input. Raises Failure (wrong use)."""
    texts = [text for path in paths for text in _read(path)]
    if not texts:
        raise usage("there is nothing to read", "Name a YAML file, or a folder with some.")
    return texts


def _read(name: str) -> Iterator[Text]:
    if name == "-":
        yield Text("standard input", sys.stdin.read())
        return
    path = Path(name)
    if path.is_dir():
        for inside in sorted(path.rglob("*")):
            if inside.suffix in SUFFIXES and inside.is_file():
                yield from _read(str(inside))
        return
    try:
        yield Text(name, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise usage(f"{name} is not there", "Look at the path; `-` reads standard input.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise usage(f"{name} cannot be read: {getattr(error, 'strerror', '') or 'it is not UTF-8 text'}") from None


def split(texts: Iterable[Text]) -> list[Manifest]:
    """Splits files into their resources, those first that others refer to. Raises Unreadable."""
    found = [manifest for text in texts for manifest in _documents(text)]
    return sorted(found, key=lambda manifest: ORDER.get(manifest.kind, len(ORDER)))


def _documents(text: Text) -> Iterator[Manifest]:
    import yaml

    lines = text.text.splitlines(keepends=True)
    try:
        nodes = [node for node in yaml.compose_all(text.text, Loader=yaml.SafeLoader) if node is not None]
        contents = [content for content in yaml.safe_load_all(text.text) if content is not None]
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        place = f":{where.line + 1}:{where.column + 1}" if where else ""
        raise Unreadable(
            f"{text.source}{place}: this is not YAML: {getattr(error, 'problem', None) or error}"
        ) from None
    for node, content in zip(nodes, contents, strict=True):
        start, end = node.start_mark.line, node.end_mark.line + 1
        # The end mark of a block lies behind it, on the separator or on the next document.
        body = [line for line in lines[start:end] if not line.startswith(("---", "..."))] if start < end else []
        metadata = content.get("metadata") if isinstance(content, dict) else None
        if not isinstance(content, dict) or not isinstance(metadata, dict) or content.get("kind") not in ORDER:
            raise Unreadable(f"{text.source}:{start + 1}: this document is no resource of ours")
        yield Manifest(
            text.source,
            "\n" * start + "".join(body),
            str(content.get("kind", "")),
            str(metadata.get("name", "")),
            str(metadata.get("namespace", "")),
            content,
        )
