"""The scripts of argocd/health as Argo CD runs them: Lua 5.1 with next to no library."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lupa.lua51  # type: ignore[import-untyped]
import pytest
import yaml

DATA = Path(__file__).parents[2] / "argocd" / "health" / "testdata"
OBJECTS = sorted(str(path.relative_to(DATA).with_suffix("")) for path in DATA.glob("*/*.yaml"))
# What Argo CD does not give: a script that uses it fails there, so it must fail here.
ABSENT = ("string", "math", "io", "os", "debug", "coroutine", "dofile", "loadfile")

Run = Callable[..., Any]


def load(name: str) -> dict[str, Any]:
    """One object of the test data, e.g. `Saga/healthy_accepted`."""
    read: dict[str, Any] = yaml.safe_load((DATA / f"{name}.yaml").read_text())
    return read


@pytest.fixture
def run() -> Run:
    """Runs a script over an object; its answer as Python values."""

    def execute(script: str, obj: dict[str, Any], parameters: dict[str, str] | None = None) -> Any:
        lua = lupa.lua51.LuaRuntime(unpack_returned_tuples=True)
        for name in ABSENT:
            lua.globals()[name] = None
        lua.execute("getmetatable('').__index = nil")
        lua.globals()["obj"] = _table(lua, obj)
        lua.globals()["actionParams"] = _table(lua, parameters or {})
        return _plain(lua.execute(script))

    return execute


def _table(lua: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return lua.table_from({name: _table(lua, inner) for name, inner in value.items()})
    if isinstance(value, list):
        return lua.table_from([_table(lua, inner) for inner in value])
    return value


def _plain(value: Any) -> Any:
    if lupa.lua51.lua_type(value) != "table":
        return value
    if len(value):
        return [_plain(value[number + 1]) for number in range(len(value))]
    return {name: _plain(inner) for name, inner in value.items()}
