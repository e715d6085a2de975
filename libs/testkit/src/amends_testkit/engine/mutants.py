"""Engines with one rule broken, made from the engine's real source by replacing text that occurs exactly once.

The modules that hold rules are loaded again as a package of another name; events and state stay shared, so that a
broken engine fits everything that takes one. Called by the tests that prove what the explorer and the simulation find.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from types import ModuleType

from amends_saga.engine import events, state
from amends_saga.explore.owners import Engine

RULES = ("rules", "answers", "evolve", "forward", "backward", "ledger", "machine", "resolve")
"""The modules that are copied, in an order in which each finds those that it imports."""

_numbers = count(1)


@contextmanager
def mutant(module: str, old: str, new: str) -> Iterator[Engine]:
    """Lend an engine in whose `module` the text `old` reads `new`.

    Raises ValueError when `old` does not occur exactly once: the engine has changed, and the mutation with it.
    """
    package = f"amends_mutant_{next(_numbers)}"
    root = ModuleType(package)
    root.__path__ = []
    vars(root).update(events=events, state=state)
    sys.modules[package] = root
    try:
        for name in RULES:
            text = _source(name)
            if name == module:
                if text.count(old) != 1:
                    raise ValueError(f"{old!r} occurs {text.count(old)} times in {name}")
                text = text.replace(old, new)
            _load(package, name, text)
        machine, ledger, resolve = (sys.modules[f"{package}.{name}"] for name in ("machine", "ledger", "resolve"))
        yield Engine(machine, ledger, resolve)
    finally:
        for name in RULES:
            sys.modules.pop(f"{package}.{name}", None)
        del sys.modules[package]


def _source(name: str) -> str:
    spec = find_spec(f"amends_saga.engine.{name}")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text()


def _load(package: str, name: str, text: str) -> None:
    text = text.replace("from amends_saga.engine import", f"from {package} import")
    for other in RULES:
        text = text.replace(f"from amends_saga.engine.{other} import", f"from {package}.{other} import")
    module = ModuleType(f"{package}.{name}")
    sys.modules[module.__name__] = module
    exec(compile(text, f"<{module.__name__}>", "exec"), module.__dict__)  # noqa: S102 - our own source
    setattr(sys.modules[package], name, module)
