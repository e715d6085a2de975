"""The import law holds, and each of its contracts can fail: a copy with one forbidden import is refused."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FORBIDDEN = {
    "the engine takes time from the machine": ("libs/saga/src/amends_saga", "import time", "The engine has no input"),
    "the engine knows the barrier": ("libs/saga/src/amends_saga", "import amends_barrier", "The engine has no input"),
    "the engine knows a stub": (
        "libs/saga/src/amends_saga",
        "from amends.saga.v1 import run_service_pb2_grpc",
        "never the generated stubs",
    ),
    "one service imports another": ("services/orders/src/shop_orders", "import shop_payments", "no deployable imports"),
    "a service knows the engine": ("services/orders/src/shop_orders", "import amends_saga", "know the engine"),
    "the chassis knows a service": (
        "libs/chassis/src/amends_chassis",
        "import shop_orders",
        "The platform knows nothing of the shop",
    ),
    "the barrier knows the chassis": (
        "libs/barrier/src/amends_barrier",
        "import amends_chassis",
        "Any Python gRPC service can take the barrier",
    ),
    "resilience knows grpc": (
        "libs/resilience/src/amends_resilience",
        "import grpc",
        "Resilience needs the standard library alone",
    ),
    "embedded knows contracts": (
        "libs/embedded/src/amends_embedded",
        "import amends_contracts",
        "knows nothing of ours",
    ),
    "a library imports the test kit": (
        "libs/chassis/src/amends_chassis",
        "import amends_testkit",
        "Only tests import the test kit",
    ),
    "one command imports another": (
        "cli/src/amends_cli/commands",
        "from amends_cli.commands.show import list_",
        "Nothing imports a command of the command line",
    ),
}


@pytest.fixture(scope="module")
def copy(root, tmp_path_factory):
    """A copy of all sources, generated ones included, under short names."""
    target = tmp_path_factory.mktemp("law")
    for source in sorted(root.glob("*/src")) + sorted(root.glob("*/*/src")) + [root / "libs/contracts/gen"]:
        shutil.copytree(source, target / source.relative_to(root), ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / ".importlinter", target)
    return target


def lint_imports(folder: Path) -> tuple[bool, str]:
    """Return whether the import law holds in `folder`, and what import-linter prints."""
    sources = [str(path) for path in [*sorted(folder.glob("**/src")), folder / "libs/contracts/gen"]]
    result = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sources)},
        capture_output=True,
        text=True,
    )
    return result.returncode == 0, " ".join(result.stdout.split())


def test_the_import_law_holds(copy):
    holds, output = lint_imports(copy)
    assert holds, output


@pytest.mark.parametrize(("package", "line", "contract"), FORBIDDEN.values(), ids=FORBIDDEN)
def test_a_forbidden_import_is_refused(copy, package, line, contract):
    intruder = copy / package / "intruder.py"
    intruder.write_text(f"{line}\n")
    try:
        holds, output = lint_imports(copy)
    finally:
        intruder.unlink()
    assert not holds
    broken = output.split("Broken contracts")[1]
    assert contract in broken


def test_every_package_is_under_the_law(root):
    """A new package has to be added to .importlinter by hand; this says so."""
    listed = (root / ".importlinter").read_text().split("include_external_packages")[0].split()
    packages = {path.parent.name for path in root.glob("**/src/*/__init__.py") if ".venv" not in path.parts}
    assert packages <= set(listed)


def test_resilience_imports_the_standard_library_alone(root, modules):
    foreign = []
    for module in modules:
        if not module.path.startswith("libs/resilience/src/"):
            continue
        for node in ast.walk(module.tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            allowed = sys.stdlib_module_names | {"amends_resilience"}
            foreign += [f"{module.path}: {name}" for name in names if name.split(".")[0] not in allowed]
    assert foreign == []
