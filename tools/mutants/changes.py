"""Finds the small mistakes that can be made in one file: a comparison turned, a condition dropped, a call left out.

A change is text for text, so that everything else in the file stays as it is. SQL in string constants is changed too:
a WHERE that lost a condition is the mistake that costs most. Called by `command`.
"""

import ast
import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

SWAPS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
REVERSED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
}
MOMENT = re.compile(r"\b(now|rings|mark|left|pause|moment)\b|\btime\(\)|\btimedelta\(\)")
"""Times: two are never the same to the microsecond, so that only the other direction makes a difference."""
COPIES = {"change", "_replace", "replace"}
"""Functions that copy a value with some fields changed: leaving one of them out is a mistake of its own."""
UNSEEN = re.compile(r"^(_?log|[A-Z_]+)\.|\.(inc|observe|set|labels)\(")
"""Calls that only tell somebody something: logs and metrics. Leaving them out loses nothing that a test must see."""
SQL = re.compile(r"\b(SELECT|UPDATE|INSERT|DELETE)\b")
CLAUSES = "AND|OR|ORDER|LIMIT|RETURNING|FOR|GROUP"
CLOCK = r"clock_timestamp|statement_timestamp"
SQL_CHANGES = (
    (re.compile(rf"\s+AND\s+(?:[^()\n\"]|\([^()]*\))+?(?=\s+(?:{CLAUSES})\b|\s*[)\n\"]|\s*$)"), ""),
    (re.compile(r"\s+FOR (?:UPDATE|SHARE)(?: OF \w+)?(?: SKIP LOCKED)?"), ""),
    (re.compile(r" SKIP LOCKED"), ""),
    (re.compile(rf" <=? (?={CLOCK})"), " > "),
    (re.compile(rf" >=? (?={CLOCK})"), " < "),
    (re.compile(rf" <= (?!{CLOCK})"), " < "),
    (re.compile(rf" < (?!{CLOCK})"), " <= "),
    (re.compile(rf" >= (?!{CLOCK})"), " > "),
    (re.compile(rf" > (?!{CLOCK})"), " >= "),
    (re.compile(r" ASC\b"), " DESC"),
    (re.compile(r" DESC\b"), " ASC"),
    (re.compile(r" IS NULL"), " IS NOT NULL"),
    (re.compile(r" IS NOT NULL"), " IS NULL"),
    (re.compile(r"\bfence \+ 1\b"), "fence"),
)


@dataclass(frozen=True, slots=True)
class Change:
    """One mistake: in a function (or constant) the text from `start` to `end`, offsets in the file, becomes `after`."""

    function: str
    line: int
    start: int
    end: int
    before: str
    after: str
    what: str = ""
    """What is done, when the two texts are too long to say it."""

    @property
    def name(self) -> str:
        """Return what tells the change from others of its file, whatever line it moves to."""
        return f"{self.function}: {self.what or self._texts}"

    @property
    def _texts(self) -> str:
        return f"{_short(self.before)} -> {_short(self.after) or '(nothing)'}"

    def apply(self, text: str) -> str:
        """Return the file's text with the mistake in it."""
        return text[: self.start] + self.after + text[self.end :]


def _short(text: str) -> str:
    return " ".join(text.split())


def changes(text: str) -> list[Change]:
    """Return every change of a file, in the order of the file."""
    finder = _Finder(text)
    found = {(change.start, change.end, change.after): change for change in finder.found()}
    return [found[key] for key in sorted(found) if found[key].before != key[2]]


class _Finder:
    """Walk the syntax tree of one file and collect the changes to try."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._bytes = text.encode()
        self._lines = [0]
        for line in self._bytes.split(b"\n"):
            self._lines.append(self._lines[-1] + len(line) + 1)

    def found(self) -> Iterator[Change]:
        for node in ast.parse(self._text).body:
            yield from self._top(node, "")

    def _top(self, node: ast.stmt, above: str) -> Iterator[Change]:
        """Yield what is in a definition: functions by their names, SQL of constants by theirs."""
        match node:
            case ast.ClassDef(name=name, body=body):
                for inner in body:
                    yield from self._top(inner, f"{above}{name}.")
            case ast.FunctionDef(name=name, body=body) | ast.AsyncFunctionDef(name=name, body=body):
                for inner in body:
                    yield from self._walk(inner, f"{above}{name}")
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield from self._sql(value, name)

    def _walk(self, node: ast.AST, function: str) -> Iterator[Change]:
        if isinstance(node, (ast.JoinedStr, ast.Raise, ast.Assert, ast.AnnAssign)):
            return  # texts for people, and what a type checker sees
        yield from self._here(node, function)
        for child in ast.iter_child_nodes(node):
            yield from self._walk(child, function)

    def _here(self, node: ast.AST, function: str) -> Iterator[Change]:
        match node:
            case ast.Compare(ops=[operator]) if type(operator) in SWAPS:
                turned = copy.deepcopy(node)
                other = REVERSED if MOMENT.search(ast.unparse(node)) else SWAPS
                turned.ops = [other.get(type(operator), SWAPS[type(operator)])()]
                yield self._replaced(node, turned, function)
            case ast.BoolOp():
                yield from self._junction(node, function)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield self._replaced(node, operand, function)
            case ast.BinOp(op=ast.Add() | ast.Sub()):
                turned_sum = copy.deepcopy(node)
                turned_sum.op = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
                yield self._replaced(node, turned_sum, function)
            case ast.Constant(value=bool(value)):
                yield self._replaced(node, ast.Constant(not value), function)
            case ast.Constant(value=int(value)):
                yield self._replaced(node, ast.Constant(value + 1), function)
            case ast.Constant(value=str()):
                yield from self._sql(node, function)
            case ast.If(test=ast.Name() | ast.Attribute() | ast.Call() as test):
                yield self._replaced(test, ast.UnaryOp(ast.Not(), test), function)
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in COPIES:
                yield from self._fewer_arguments(node, name, function)
            case ast.Expr(value=ast.Call() | ast.Await()) if not UNSEEN.search(ast.unparse(node)):
                yield self._replaced(node, ast.Pass(), function)

    def _junction(self, node: ast.BoolOp, function: str) -> Iterator[Change]:
        """Yield `and` for `or` and the other way round, and the node without each of its parts."""
        turned = copy.deepcopy(node)
        turned.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield self._replaced(node, turned, function)
        for index in range(len(node.values)):
            rest = [value for place, value in enumerate(node.values) if place != index]
            kept = rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
            yield self._replaced(node, kept, function)

    def _fewer_arguments(self, node: ast.Call, name: str, function: str) -> Iterator[Change]:
        """Yield the call without each of its named arguments."""
        for index in range(len(node.keywords)):
            fewer = copy.deepcopy(node)
            left_out = fewer.keywords.pop(index).arg
            yield replace(self._replaced(node, fewer, function), what=f"{name} without {left_out}")

    def _sql(self, node: ast.AST, function: str) -> Iterator[Change]:
        """Yield mistakes in the SQL of a string constant."""
        for constant in ast.walk(node):
            if not (isinstance(constant, ast.Constant) and isinstance(constant.value, str)):
                continue
            start, end = self._span(constant)
            source = self._text[start:end]
            if not SQL.search(source):
                continue
            for pattern, after in SQL_CHANGES:
                for match in pattern.finditer(source):
                    place = start + match.start()
                    line = self._text.count("\n", 0, place) + 1
                    yield Change(function, line, place, start + match.end(), match[0], after)

    def _replaced(self, node: ast.AST, other: ast.AST, function: str) -> Change:
        start, end = self._span(node)
        after = ast.unparse(ast.fix_missing_locations(other))
        if isinstance(other, (ast.BoolOp, ast.Compare, ast.BinOp, ast.UnaryOp)):
            after = f"({after})"
        return Change(function, node.lineno, start, end, self._text[start:end], after)  # type: ignore[attr-defined]

    def _span(self, node: ast.AST) -> tuple[int, int]:
        """Return a node's place as offsets of characters; `ast` counts bytes."""
        start = self._lines[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        end = self._lines[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
        return len(self._bytes[:start].decode()), len(self._bytes[:end].decode())
