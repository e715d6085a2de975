"""Prints lines, tables, JSON and YAML: the only module of the command line that prints.

Everything that is printed here is escaped, because messages, reasons, keys and names come from others, and a terminal
obeys them. Tables are for people: colours only on a terminal. JSON and YAML have the API's field names (canonical
protobuf JSON). Called by every command.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from amends_chassis.text import UNSAFE, escape

from amends_cli.failure import CliError, Exit, usage

if TYPE_CHECKING:
    from rich.console import Console

OutputRow = Mapping[str, Any]


class Format(StrEnum):
    """The forms in which a command prints its result."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


class Listing(StrEnum):
    """The forms in which a command prints things that have a name."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


Output = Annotated[Format, typer.Option("-o", "--output", help="How to print.")]
NamedOutput = Annotated[Listing, typer.Option("-o", "--output", help="How to print; name is for scripts.")]


@dataclass(frozen=True, slots=True)
class Styled:
    """A part of a line with a colour; without one on anything but a terminal."""

    text: str
    fg: str | None = None
    bold: bool = False
    dim: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    title: str
    value: Callable[[OutputRow], str]
    wide: bool = False
    """Shown only with -o wide."""
    cut: bool = False
    """Shortened where a terminal is too narrow; all others are always whole, so that they can be copied."""


class OutputGoneError(Exception):
    """The reader of the output has closed it, as in `amends list | head`."""


def prepare() -> None:
    """Make the streams take every character. Raises CliError when there is no standard output."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # for the life of the process
    if sys.stdout is None:
        raise CliError("standard output is closed", "Redirect it to a file, or to /dev/null.")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a test may have put something else there
            stream.reconfigure(errors="backslashreplace")


def finish() -> None:
    """Flush what was printed, so that a full disk is noticed. Raises CliError or OutputGoneError."""
    if sys.stdout is not None:
        _guarded(sys.stdout.flush)


def discard() -> None:
    """Drop what could not be written: the interpreter would try once more at its end, and complain."""
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), sys.stdout.fileno())


def line(*parts: str | Styled, err: bool = False) -> None:
    """Print one line made of parts; a line break in one of them is shown, and breaks nothing.

    Raises CliError when it cannot be written.
    """
    styled = [part if isinstance(part, Styled) else Styled(part) for part in parts]
    text = "".join(
        typer.style(escape(part.text), fg=part.fg, bold=part.bold or None, dim=part.dim or None)
        if part.fg or part.bold or part.dim
        else escape(part.text)
        for part in styled
    )
    _write(text.rstrip(" "), err=err)


def lines(text: str, *, err: bool = False) -> None:
    """Print a text of ours that has several lines."""
    for one in text.removesuffix("\n").split("\n"):
        line(one, err=err)


def say(text: str) -> None:
    """Print one line for people; it goes to stderr, so that stdout holds data alone."""
    line(text, err=True)


def emit(data: Any, form: Format | Listing) -> bool:
    """Print data as JSON or YAML; False, and nothing printed, when a table was asked for."""
    if form == Format.JSON:
        _write(as_json(data, indent=2))
    elif form == Format.YAML:
        _write(_as_yaml(data).rstrip("\n"))
    else:
        return False
    return True


def emit_record(data: Any, form: Format) -> None:
    """Print one of many records as they come: a line of JSON, or a document of YAML."""
    _write(as_json(data) if form is Format.JSON else f"---\n{_as_yaml(data)}".rstrip("\n"))


def emit_piece(text: str) -> None:
    """Print a part of a JSON text; the next one comes on the same line."""
    _guarded(lambda: typer.echo(UNSAFE.sub(_in_json, text), nl=False))


def as_json(data: Any, *, indent: int | None = None) -> str:
    """Return data as JSON that holds no character that a terminal obeys."""
    text = json.dumps(data, indent=indent, ensure_ascii=not _takes_unicode())
    return text if text.isascii() else UNSAFE.sub(_in_json, text)


def _as_yaml(data: Any) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes what holds an unsafe character, so that it can be written as an escape."""

    def quoted(dumper: Any, text: str) -> Any:
        style = '"' if UNSAFE.search(text) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, quoted)
    text: str = yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=_takes_unicode(), width=10_000)
    return text if text.isascii() else UNSAFE.sub(_in_json, text)


def _in_json(found: re.Match[str]) -> str:
    """Write an unsafe character as JSON and quoted YAML do; line breaks of the document stay."""
    if found[0] == "\n":
        return "\n"
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _takes_unicode() -> bool:
    return (getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("-", "").startswith("utf")


def _write(text: str, *, err: bool = False) -> None:
    stream: TextIO = sys.stderr if err else sys.stdout
    colour = False if os.environ.get("NO_COLOR") else None
    _guarded(lambda: typer.echo(text, file=stream, color=colour))


def _guarded(write: Callable[[], None]) -> None:
    try:
        write()
    except BrokenPipeError:
        raise OutputGoneError from None
    except OSError as error:
        raise CliError(f"the output cannot be written: {error.strerror}", code=Exit.FAILED) from None


def emit_rows(rows: Sequence[OutputRow], columns: Iterable[Column], form: Format | Listing, *, empty: str) -> None:
    """Print rows in the form asked for; `empty` is what people read when there are none."""
    if emit(list(rows), form):
        return
    if not rows:
        say(empty)
        return
    shown = [column for column in columns if form == Format.WIDE or not column.wide]
    cut = {number for number, column in enumerate(shown) if column.cut}
    emit_table([column.title for column in shown], [[column.value(row) for column in shown] for row in rows], cut=cut)


def emit_named(rows: Sequence[OutputRow], columns: Iterable[Column], form: Format | Listing, *, empty: str) -> None:
    """Print rows that have a name; for scripts the names alone."""
    if form is Listing.NAME:
        for row in rows:
            line(str(row["name"]))
    else:
        emit_rows(rows, columns, form, empty=empty)


def emit_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, cut: Iterable[int] = ()) -> None:
    """Print a table, a line for each row; on a terminal the columns in `cut` are shortened to its width."""
    from rich.cells import cell_len, set_cell_size

    cells = [[escape(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    if sys.stdout.isatty():
        over = sum(widths) + 2 * (len(widths) - 1) - shutil.get_terminal_size().columns
        for number in cut:
            less = max(0, min(over, widths[number] - max(10, cell_len(headings[number]))))
            widths[number] -= less
            over -= less
    for number, row in enumerate(cells):
        fitted = [
            cell + " " * (width - cell_len(cell)) if cell_len(cell) <= width else set_cell_size(cell, width - 1) + "…"
            for cell, width in zip(row, widths, strict=True)
        ]
        line(Styled("  ".join(fitted).rstrip(), bold=number == 0))


def progress_console() -> "Console":
    """Return a console on stderr, for a bar that moves."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def field(*path: str) -> Callable[[OutputRow], str]:
    """Read a nested field as text; what is not there is empty."""

    def read(row: OutputRow) -> str:
        value: Any = row
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, Mapping | list):
            return as_json(value)
        return "" if value is None else str(value)

    return read


def unnamed(form: Listing) -> Format:
    """Return the format; raises CliError (wrong use) for `-o name`, where nothing has a name."""
    if form is Listing.NAME:
        raise usage("-o name shows the names of runs and resources", "Use it with `amends list` and `amends get`.")
    return Format(form)
