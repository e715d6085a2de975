"""A docstring that names its caller names somebody who is there, and who knows this module."""

import ast
import re
from collections.abc import Iterator

import pytest

CALLED_BY = re.compile(r"\b(?:Called|Started|Used) by ((?:[^.;`]|`[^`]*`)*)")
NAMED = re.compile(r"`([A-Za-z_][\w.]*)`")


def claims(tree: ast.Module) -> Iterator[str]:
    """The callers in a module's docstring, as they are named there."""
    for sentence in CALLED_BY.findall(ast.get_docstring(tree) or ""):
        yield from NAMED.findall(sentence)


def mentions(tree: ast.Module) -> set[str]:
    """Every name that a module uses, imports or writes in a text: processes are started by the names of modules."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            parts = (node.module or "").split(".") if isinstance(node, ast.ImportFrom) else []
            found |= {*parts, *(part for alias in node.names for part in alias.name.split("."))}
        elif isinstance(node, ast.Name | ast.Attribute):
            found.add(node.id if isinstance(node, ast.Name) else node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= set(re.findall(r"\w+", node.value))
    return found


def defines(tree: ast.Module) -> set[str]:
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def stale(modules) -> list[str]:
    """Who is named as a caller and is not there, or has never heard of the module or of what it defines."""
    places: dict[str, list] = {}
    for module in modules:
        parts = module.path.removesuffix(".py").split("/")
        names = {parts[-1], *(parts[-2:-1] if parts[-1] in ("__init__", "__main__") else ()), *defines(module.tree)}
        names |= {parts[-2]}
        for name in names:
            places.setdefault(name, []).append(module)
    known = {id(module): mentions(module.tree) for module in modules}
    found = []
    for module in modules:
        stem = module.path.removesuffix(".py").split("/")[-1]
        own = {stem, *defines(module.tree)}
        for claim in claims(module.tree):
            callers = places.get(claim.split(".")[-1], [])
            if not any(other is not module and own & known[id(other)] for other in callers):
                found.append(f"{module.path}: {claim}")
    return found


def test_every_caller_that_a_module_names_knows_it(modules) -> None:
    named = [module for module in modules if "/src/" in module.path]
    assert sum(1 for module in named for _ in claims(module.tree)) > 40
    assert stale(named) == []


@pytest.mark.parametrize(
    ("docstring", "wrong"),
    [("Called by `caller`.", False), ("Called by `nobody`.", True), ("Called by `stranger`.", True)],
)
def test_a_caller_that_is_not_there_is_found(module_of, docstring: str, wrong: bool) -> None:
    made = [
        module_of.parse("libs/x/src/x/work.py", f'"""{docstring}"""\n\ndef work(): ...\n'),
        module_of.parse("libs/x/src/x/caller.py", "from x.work import work\n"),
        module_of.parse("libs/x/src/x/stranger.py", "import os\n"),
    ]
    assert bool(stale(made)) is wrong
