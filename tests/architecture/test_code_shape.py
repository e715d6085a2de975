"""The rules of shape that ruff has none for. Each rule is also shown a sample that it must refuse."""

import ast
import re
from pathlib import Path

import pytest

MACHINE_PATH = re.compile(r"(?<![\w/.$}>-])/(?:home|Users|root|work|mnt)/[\w.-]+")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler)
DECISIONS = 15
SERVICES = {path.name for path in (Path(__file__).parents[2] / "services").iterdir() if path.is_dir()}


def functions(module):
    return [node for node in ast.walk(module.tree) if isinstance(node, FUNCTIONS)]


def public_functions(module):
    """Functions and methods of the module's public surface: no underscore in front, not inside another function."""
    pending = [node for node in module.tree.body if isinstance(node, (ast.ClassDef, *FUNCTIONS))]
    while pending:
        node = pending.pop()
        if node.name.startswith("_"):
            continue
        if isinstance(node, ast.ClassDef):
            pending += [child for child in node.body if isinstance(child, (ast.ClassDef, *FUNCTIONS))]
        else:
            yield node


def has_a_docstring(module):
    """Why the module exists and who calls it. An empty `__init__.py` says nothing and needs none."""
    if module.tree.body and not module.is_test and not ast.get_docstring(module.tree):
        yield "no module docstring"


def is_at_most_600_lines(module):
    if (lines := module.text.count("\n")) > 600:
        yield f"{lines} lines"


def has_functions_of_at_most_80_lines(module):
    for function in functions(module):
        if (lines := function.end_lineno - function.lineno + 1) > 80:
            yield f"{function.name} has {lines} lines"


def decisions(function):
    """Count the places where a function decides; each `and` and `or` is one. Inner functions count for themselves.

    A `match` reads as a table: its cases are not counted, their guards are.
    """
    count, pending = 0, list(ast.iter_child_nodes(function))
    while pending:
        node = pending.pop()
        if isinstance(node, FUNCTIONS):
            continue
        if isinstance(node, BRANCHES):
            count += 1
        elif isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            count += 1 + len(node.ifs)
        elif isinstance(node, ast.match_case):
            count += node.guard is not None
        pending += ast.iter_child_nodes(node)
    return count


def has_functions_of_at_most_15_decisions(module):
    for function in functions(module):
        if (count := decisions(function)) > DECISIONS:
            yield f"{function.name} decides in {count} places"


def names_its_logger_log(module):
    """Refuse a logger with another name: a reader knows the logger of every module by `_log`."""
    for node in module.tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=ast.Attribute(attr=made))):
                if made in ("get_logger", "getLogger") and name != "_log":
                    yield f"line {node.lineno} calls its logger {name}, not _log"


POSTPONED = ("services/orchestrator/src/", "operator/src/")
"""Packages whose annotations are all postponed; elsewhere the few names that are not there yet stand in quotes."""


def writes_annotations_as_its_package_does(module):
    postponed = "from __future__ import annotations\n" in module.text
    if module.path.startswith(POSTPONED):
        if functions(module) and not postponed:
            yield "its annotations are not postponed, as those of its package are"
    elif "/src/" in module.path and postponed:
        yield "its annotations are postponed, unlike those of its package"


def documents_public_functions(module):
    """An overriding method that says so, and a gRPC method (its contract documents it), need no second text."""
    if module.is_test:
        return
    for function in public_functions(module):
        names = {decorator.id for decorator in function.decorator_list if isinstance(decorator, ast.Name)}
        if not ast.get_docstring(function) and not names & {"override", "overload"}:
            yield f"{function.name} has no docstring"


def types_public_functions(module):
    if module.is_test:
        return
    for function in public_functions(module):
        arguments = function.args
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        untyped = [argument.arg for argument in named if argument.annotation is None]
        if function.returns is None or [name for name in untyped if name not in ("self", "cls")]:
            yield f"{function.name} is not fully typed"


def has_a_short_composition_root(module):
    if module.path.endswith("__main__.py") and (lines := module.text.count("\n")) > 30:
        yield f"{lines} lines in __main__"


def leaves_the_grpc_context_alone(module):
    """Handlers raise; one place maps errors to a status."""
    allowed = ("libs/chassis/", "libs/barrier/", "libs/testkit/", "examples/own-services/")
    if module.is_test or module.path.startswith(allowed):
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and node.attr in ("abort", "abort_with_status", "set_code", "set_details"):
            yield f"line {node.lineno} touches context.{node.attr}"


def imports_no_other_service(module):
    """For a service's own tests too, which import-linter does not read."""
    match = re.match(r"services/(\w+)/", module.path)
    if match is None:
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        for name in names:
            other = re.match(r"(?:shop|amends)_(\w+)", name)
            if other and other[1] != match[1] and other[1] in SERVICES:
                yield f"line {node.lineno} imports {name}"


RULES = {
    has_a_docstring: ("libs/x/src/x/a.py", "x = 1\n"),
    is_at_most_600_lines: ("libs/x/src/x/a.py", "x = 1\n" * 601),
    has_functions_of_at_most_80_lines: ("libs/x/src/x/a.py", "def f():\n" + "    x = 1\n" * 80),
    has_functions_of_at_most_15_decisions: (
        "libs/x/src/x/a.py",
        f"def f(a):\n    return {' and '.join('a' * 9)} or [b for b in {' or '.join('a' * 8)} if b]\n",
    ),
    names_its_logger_log: ("libs/x/src/x/a.py", "import structlog\n\nlog = structlog.get_logger(__name__)\n"),
    writes_annotations_as_its_package_does: ("libs/x/src/x/a.py", "from __future__ import annotations\n"),
    documents_public_functions: ("libs/x/src/x/a.py", "class A:\n    def f(self) -> None: ...\n"),
    types_public_functions: ("libs/x/src/x/a.py", "async def f(a, *, b: int) -> None: ...\n"),
    has_a_short_composition_root: ("services/x/src/x/__main__.py", "x = 1\n" * 31),
    leaves_the_grpc_context_alone: ("services/x/src/x/api.py", "async def f(context):\n    await context.abort(5)\n"),
    imports_no_other_service: ("services/orders/tests/test_a.py", "from shop_payments import store\n"),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_module(rule, modules):
    assert [f"{module.path}: {problem}" for module in modules for problem in rule(module)] == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_sample_that_breaks_the_rule_is_refused(rule, module_of):
    assert list(rule(module_of.parse(*RULES[rule])))


def test_no_tracked_file_names_a_path_of_somebodys_machine(root, tracked):
    found = []
    for name in tracked:
        try:
            text = (root / name).read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{name}: {match[0]}" for match in MACHINE_PATH.finditer(text)]
    assert found == []


def test_a_machine_path_is_recognised():
    assert MACHINE_PATH.search("cd " + "/home" + "/ann/amends")
    assert not MACHINE_PATH.search("kubernetes.io/home/x and $HOME/home/x")
