"""Prints data as a table, wide table, JSON or YAML. Called by every command that shows something.

Tables are for people: colours only on a terminal. JSON and YAML have the API's field names (canonical protobuf JSON).
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

Row = Mapping[str, Any]


class Format(StrEnum):
    """How to print."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


Output = Annotated[Format, typer.Option("-o", "--output", help="How to print.")]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    title: str
    value: Callable[[Row], str]
    wide: bool = False
    """Shown only with -o wide."""


def console(*, stderr: bool = False) -> "Console":
    """A console that colours on a terminal only and never breaks a line that a program may read."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, soft_wrap=not stream.isatty())


def say(text: str) -> None:
    """Prints one line for people; it goes to stderr, so that stdout holds data alone."""
    typer.echo(text, err=True)


def emit(data: Any, form: Format) -> bool:
    """Prints data as JSON or YAML; False, and nothing printed, when a table was asked for."""
    if form is Format.JSON:
        typer.echo(json.dumps(data, indent=2, ensure_ascii=False))
    elif form is Format.YAML:
        import yaml

        typer.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True).rstrip())
    else:
        return False
    return True


def emit_rows(rows: Sequence[Row], columns: Iterable[Column], form: Format, *, empty: str) -> None:
    """Prints rows in the form asked for; `empty` is what people read when there are none."""
    if emit(list(rows), form):
        return
    if not rows:
        say(empty)
        return
    shown = [column for column in columns if form is Format.WIDE or not column.wide]
    emit_table([column.title for column in shown], [[column.value(row) for column in shown] for row in rows])


def emit_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table: fitted to a terminal, and without limits of width into a file or a pipe."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    table = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=not terminal)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # what a participant said is no markup
    printer = console()
    if not terminal:
        printer.width = 10_000
    printer.print(table)


def field(*path: str) -> Callable[[Row], str]:
    """Reads a nested field as text; what is not there is empty."""

    def read(row: Row) -> str:
        value: Any = row
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return "" if value is None else str(value)

    return read
