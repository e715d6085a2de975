"""Compiles the engine to machine code (mypyc) for a wheel that asks for it, and for `make compiled`.

Off unless HATCH_BUILD_HOOK_ENABLE_CUSTOM=true: an editable install is the source, and so is a wheel for any platform.
The source goes into the wheel too; Python prefers what is compiled. Needs a C compiler and Python's headers.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).parent
PACKAGE = HERE / "src/amends_saga"
# What every step of every run goes through. The rest gains nothing: it waits, or it runs when a saga is applied. And
# nothing here may use functools.cached_property, which in a compiled class is worked out anew each time.
HOT = ("engine/*.py", "journal.py", "cel/copying.py", "cel/runtime.py")
# Their types make better code; in a build without them they count as Any.
TYPES = (HERE.parent / "resilience/src", HERE.parent / "contracts/gen")


class NoCompilerError(RuntimeError):
    """This machine can't compile."""


def check_compiler() -> None:
    """Raise NoCompilerError that says what is missing and how to get it."""
    headers = Path(sysconfig.get_path("include"), "Python.h")
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    missing = [] if shutil.which(compiler) else [f"a C compiler ({compiler})"]
    missing += [] if headers.exists() else [f"Python's headers ({headers})"]
    if missing:
        raise NoCompilerError(f"needs {' and '.join(missing)}; on Debian: apt-get install gcc libc6-dev python3-dev")


def compile_into(folder: Path) -> list[Path]:
    """Put a copy of the package into an empty `folder`, compiled; return the shared objects.

    Raises NoCompilerError, and subprocess.CalledProcessError after the compiler has said why.
    """
    check_compiler()
    copy = folder / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    hot = sorted(str(path.relative_to(folder)) for pattern in HOT for path in copy.glob(pattern))
    done = subprocess.run(  # noqa: S603 - our own interpreter, no shell
        [sys.executable, "-m", "mypyc", "--config-file=", "--ignore-missing-imports", *hot],
        cwd=folder,
        env=os.environ | {"MYPYPATH": os.pathsep.join(map(str, TYPES))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    shutil.rmtree(folder / "build", ignore_errors=True)
    if done.returncode:
        print(done.stdout, file=sys.stderr)  # noqa: T201 - a build tool
        done.check_returncode()
    return sorted(folder.rglob("*.so"))


class Hook(BuildHookInterface[Any]):
    """Hatchling's entry point."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and put the result beside the source in the wheel."""
        if version == "editable":
            return
        folder = Path(self.directory, "compiled")
        shutil.rmtree(folder, ignore_errors=True)
        found = compile_into(folder)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"].update({str(path): str(path.relative_to(folder)) for path in found})


if __name__ == "__main__":
    try:
        compile_into(Path(sys.argv[1]))
    except NoCompilerError as error:
        print(f"NOT COMPILED, the slower source is used: {error}", file=sys.stderr)  # noqa: T201 - a build tool
