"""Generates Python code, type stubs and `descriptors.binpb` from protos/ whenever this distribution is built.

Called by hatchling for wheels and editable installs, and by `make proto` through `python hatch_build.py`.
Generated code is tied to the versions of protobuf and grpcio that made it; making it at build time
keeps both in step (see docs/adr).
"""

import shutil
import subprocess
import sys
import sysconfig
from importlib.resources import files
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).parent
PROTOS = HERE.parent.parent / "protos"
GEN = HERE / "gen"


def generate() -> None:
    """Rewrite gen/ from protos/. Raises subprocess.CalledProcessError when protoc refuses a file."""
    shutil.rmtree(GEN, ignore_errors=True)
    GEN.mkdir()
    names = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    scripts = Path(sysconfig.get_path("scripts"))
    descriptors = GEN / "amends" / "descriptors.binpb"
    descriptors.parent.mkdir()
    subprocess.run(  # noqa: S603 - our own interpreter, no shell
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            *(f"-I{PROTOS}", f"-I{files('grpc_tools') / '_proto'}"),
            *(f"--plugin={name}={scripts / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")),
            *(f"--{kind}_out={GEN}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")),
            *("--include_imports", "--include_source_info", f"--descriptor_set_out={descriptors}"),
            *names,
        ],
        check=True,
    )
    for folder in {parent for path in GEN.rglob("*.py") for parent in path.parents if GEN in parent.parents}:
        (folder / "__init__.py").touch()
        (folder / "py.typed").touch()
    # A file without services still gets an empty grpc module: nobody should import it.
    for path in GEN.rglob("*_pb2_grpc.py"):
        if "class " not in path.read_text():
            path.unlink()
            path.with_suffix(".pyi").unlink(missing_ok=True)


class Hook(BuildHookInterface[Any]):
    """The build hook that Hatchling finds by this name."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate, and put the result into the wheel (an editable install reads gen/ in place)."""
        generate()
        if version != "editable":
            # An image has only the contracts that its service knows; those of the shop may be missing.
            packages = (path for path in GEN.iterdir() if path.is_dir())
            build_data["force_include"].update({str(path): path.name for path in packages})


if __name__ == "__main__":
    generate()
