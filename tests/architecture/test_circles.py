"""No module of the tree imports, by any way round, one that imports it: not lazily, and not for types alone either."""

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pytest


def name_of(path: str) -> str:
    """The dotted name of a module below a src folder."""
    parts = path.removesuffix(".py").partition("/src/")[2].split("/")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.Module, known: frozenset[str]) -> Iterator[str]:
    """The modules of ours that a module imports, wherever the statement stands.

    `from package import name` is an import of package.name if that is a module, and else of the package.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module


def graph_of(sources: Mapping[str, ast.Module]) -> dict[str, set[str]]:
    known = frozenset(sources)
    return {
        name: {found for found in imports(tree, known) if found in known and found != name}
        for name, tree in sources.items()
    }


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The strongly connected parts of more than one module (Tarjan's algorithm, without recursion)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []
    for root in graph:
        if root in order:
            continue
        order[root] = lowest[root] = len(order)
        stack.append(root)
        work = [(root, iter(sorted(graph[root])))]
        while work:
            name, inner = work[-1]
            for other in inner:
                if other not in order:
                    order[other] = lowest[other] = len(order)
                    stack.append(other)
                    work.append((other, iter(sorted(graph[other]))))
                    break
                if other in stack:
                    lowest[name] = min(lowest[name], order[other])
            else:
                work.pop()
                if work:
                    lowest[work[-1][0]] = min(lowest[work[-1][0]], lowest[name])
                if lowest[name] == order[name]:
                    at = stack.index(name)
                    part, stack[at:] = stack[at:], []
                    if len(part) > 1:
                        found.append(sorted(part))
    return found


@pytest.fixture(scope="module")
def graph(modules) -> dict[str, set[str]]:
    return graph_of({name_of(module.path): module.tree for module in modules if "/src/" in module.path})


def test_no_module_imports_itself_by_a_way_round(graph) -> None:
    assert len(graph) > 300
    assert sum(map(len, graph.values())) > 1_000
    assert circles(graph) == []


def packages(graph: Mapping[str, Iterable[str]], depth: int) -> dict[str, set[str]]:
    """The same graph between packages, e.g. amends_saga.check at a depth of two."""

    def short(name: str) -> str:
        return ".".join(name.split(".")[:depth])

    found: dict[str, set[str]] = {short(name): set() for name in graph}
    for name, others in graph.items():
        found[short(name)] |= {short(other) for other in others} - {short(name)}
    return found


def test_no_distribution_imports_itself_by_a_way_round(graph) -> None:
    assert circles(packages(graph, 1)) == []


SAMPLES: Sequence[tuple[dict[str, str], list[list[str]]]] = [
    ({"a": "import b", "b": "import a"}, [["a", "b"]]),
    ({"a": "import b", "b": "def f():\n    from a import x"}, [["a", "b"]]),
    ({"p.a": "from p import b", "p.b": "from p.c import d", "p.c": "import p.a", "p": ""}, [["p.a", "p.b", "p.c"]]),
    ({"a": "import b\nimport c", "b": "import c", "c": "import os"}, []),
]


@pytest.mark.parametrize(("sources", "wanted"), SAMPLES, ids=["two", "lazily", "three", "none"])
def test_a_circle_is_found_and_a_diamond_is_none(sources: dict[str, str], wanted: list[list[str]]) -> None:
    assert circles(graph_of({name: ast.parse(text) for name, text in sources.items()})) == wanted
