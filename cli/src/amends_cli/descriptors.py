"""Loads protobuf contracts from a FileDescriptorSet or compiles them from a folder of .proto files.

Called by `check` and `apply`, for services without reflection and for checks without a server.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amends_cli.failure import Failure, usage

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

Descriptors = Annotated[
    list[Path] | None,
    typer.Option(
        "--descriptors",
        metavar="FILE",
        help="A FileDescriptorSet (`buf build -o FILE`, `protoc --descriptor_set_out`).",
    ),
]
Protos = Annotated[
    list[Path] | None,
    typer.Option("--protos", metavar="DIR", help="A folder of .proto files, the root of their imports."),
]


def load(files: Iterable[Path] | None, folders: Iterable[Path] | None) -> "FileDescriptorSet | None":
    """Loads all of them as one set; None when none was named. Raises Failure."""
    sources = [(str(file), _parse(file)) for file in files or ()]
    sources += [(str(folder), _compile(folder)) for folder in folders or ()]
    return merge(sources) if sources else None


def merge(sources: "list[tuple[str, FileDescriptorSet]]") -> "FileDescriptorSet":
    """One set of all (source, files); two files of one name must mean the same, but for comments. Raises Failure."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    merged, first = FileDescriptorSet(), {}
    for source, contract in sources:
        for file in contract.file:
            file.ClearField("source_code_info")
            if file.name not in first:
                first[file.name] = (source, file)
                merged.file.append(file)
            elif first[file.name][1] != file:
                raise Failure(
                    f"{first[file.name][0]} and {source} contradict each other about {file.name}",
                    "Make both from the same version of the contracts.",
                )
    return merged


def _parse(file: Path) -> "FileDescriptorSet":
    from google.protobuf.descriptor_pb2 import FileDescriptorSet
    from google.protobuf.message import DecodeError

    try:
        found = FileDescriptorSet.FromString(file.read_bytes())
    except OSError as error:
        raise usage(f"{file} cannot be read: {error.strerror}") from None
    except DecodeError:
        found = FileDescriptorSet()
    if not found.file:
        raise usage(
            f"{file} is no FileDescriptorSet",
            f"Make one: `buf build -o {file.name}` or `protoc --include_imports --descriptor_set_out={file.name} ...`.",
        )
    return found


def _compile(folder: Path) -> "FileDescriptorSet":
    if not folder.is_dir():
        raise usage(f"{folder} is no folder", "--protos takes the folder that the imports start from.")
    if find_spec("grpc_tools") is None:
        raise Failure(
            "--protos needs the protobuf compiler, which is not installed here",
            "`pip install grpcio-tools`, or give a FileDescriptorSet with --descriptors.",
        )
    sources = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.proto"))
    if not sources:
        raise usage(f"there is no .proto file in {folder}")
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "set.binpb"
        # A process of its own: the compiler ends the one it runs in when something is wrong.
        done = subprocess.run(  # noqa: S603
            [
                *(sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={folder}"),
                *(f"--proto_path={path}" for path in _well_known()),
                *("--include_imports", f"--descriptor_set_out={target}", *sources),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise Failure(f"the contracts in {folder} do not compile\n{done.stderr.strip()}")
        return _parse(target)


def _well_known() -> list[str]:
    """Where google/protobuf/*.proto and google/rpc/*.proto are installed."""
    paths = []
    for package, inside in (("grpc_tools", "_proto"), ("google.rpc", "../..")):
        spec = find_spec(package)
        for place in spec.submodule_search_locations or () if spec else ():
            paths.append(str((Path(place) / inside).resolve()))
    return paths
