"""Loads protobuf contracts from a FileDescriptorSet or compiles them from folders of .proto files.

Called by `check` and `apply`, for services without reflection and for checks without a server.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amends_cli.failure import CliError, usage
from amends_cli.output import say

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

_PROTOC = "import json, sys; from grpc_tools import protoc; [protoc.main(one) for one in json.load(sys.stdin)]"
_PASSED_BY = frozenset({"node_modules", "__pycache__"})
_SHOWN = 6
"""Lines of the compiler that are shown."""

DescriptorsOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--descriptors",
        metavar="FILE",
        help="A FileDescriptorSet (`buf build -o FILE`, `protoc --descriptor_set_out`).",
    ),
]
Protos = Annotated[
    list[Path] | None,
    typer.Option("--protos", metavar="DIR", help="A folder of .proto files, a root of their imports."),
]


def load(files: Iterable[Path] | None, folders: Iterable[Path] | None) -> "FileDescriptorSet | None":
    """Load all of them as one set; None when none was named. Raises CliError."""
    sources = [(str(file), _parse(file)) for file in files or ()]
    roots = list(folders or ())
    if roots:
        sources.append((" and ".join(map(str, roots)), _compile(roots)))
    return merge(sources) if sources else None


def merge(sources: "list[tuple[str, FileDescriptorSet]]") -> "FileDescriptorSet":
    """One set of all (source, files). Raises CliError when two sources contradict each other about one service.

    The name of a file means something within its source only: of two that differ the later one, and what imports it,
    gets another name.
    """
    from amends_contracts.wellknown import well_known_file
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    merged = FileDescriptorSet()
    known: dict[str, bytes] = {}
    for source, contract in sources:
        for file in contract.file:
            file.ClearField("source_code_info")
        names = _new_names(source, contract, known)
        for file in contract.file:
            if well_known_file(file.name) is not None and file.name in known:
                continue
            if file.name in names:
                file.name = names[file.name]
                file.dependency[:] = [names.get(name, name) for name in file.dependency]
            if file.name not in known:
                known[file.name] = file.SerializeToString(deterministic=True)
                merged.file.append(file)
    _agree(sources)
    return merged


def _new_names(source: str, contract: "FileDescriptorSet", known: dict[str, bytes]) -> dict[str, str]:
    """Choose new names for files that differ from a known one of the same name, and for those that import them."""
    from amends_contracts.wellknown import well_known_file

    clashing = {
        file.name
        for file in contract.file
        if file.name in known
        and well_known_file(file.name) is None
        and known[file.name] != file.SerializeToString(deterministic=True)
    }
    grown = clashing
    while grown:
        grown = {file.name for file in contract.file if grown & set(file.dependency)} - clashing
        clashing |= grown
    return {name: f"{source}/{name}" for name in clashing}


def _agree(sources: "list[tuple[str, FileDescriptorSet]]") -> None:
    """Raise CliError when two sources say different things about what the methods of one service take and answer."""
    from amends_saga.descriptors import Contracts, ContractSet

    if len(sources) < 2:
        return
    contracts = {source: ContractSet(contract) for source, contract in sources}
    services = {name for given in contracts.values() for name in given.symbols if given.has_service(name)}
    for service in sorted(services):
        having = {source: given for source, given in contracts.items() if given.has_service(service)}
        together = Contracts()
        for source, given in having.items() if len(having) > 1 else ():
            together.take(source, given.view(service))
        for conflict in together.conflicts.values():
            raise CliError(
                f"{conflict.first} and {conflict.second} contradict each other about {conflict.symbol}: "
                f"{conflict.says_first} in the first, {conflict.says_second} in the second",
                f"Both have {service}: give the version of the server that is called.",
            )


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


def _compile(folders: list[Path]) -> "FileDescriptorSet":
    """Compile every .proto file in the folders that can be; all folders are roots of each file's imports."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    roots = [folder.resolve() for folder in folders]
    for folder in folders:
        if not folder.is_dir():
            raise usage(f"{folder} is no folder", "--protos takes the folder that the imports start from.")
    if find_spec("grpc_tools") is None:
        raise CliError(
            "--protos needs the protobuf compiler, which is not installed here",
            "`pip install grpcio-tools`, or give a FileDescriptorSet with --descriptors.",
        )
    roots.sort(key=lambda root: len(root.parts), reverse=True)  # a file belongs to the innermost root
    sources = _sources(roots)
    shown = " and ".join(map(str, folders))
    if not sources:
        raise usage(f"there is no .proto file in {shown}")
    paths = [*roots, *map(Path, _well_known())]
    whole, _ = _run(paths, [sources])
    if whole:
        return whole[0]
    compiled, said = _run(paths, [[source] for source in sources])
    if not compiled:
        raise CliError(f"the contracts in {shown} do not compile\n{_few(said)}")
    say(f"some contracts in {shown} do not compile and are left out:\n{_few(said)}")
    together = FileDescriptorSet()
    for name in dict.fromkeys(file.name for found in compiled for file in found.file):
        together.file.append(next(file for found in compiled for file in found.file if file.name == name))
    return together


def _sources(roots: list[Path]) -> list[str]:
    """Return the .proto files below the roots, as their imports name them, each once."""
    found: dict[Path, str] = {}
    for root in roots:
        for folder, inside, names in os.walk(root):
            here = Path(folder)
            inside[:] = sorted(name for name in inside if not _is_passed_by(here / name))
            for name in sorted(names):
                if name.endswith(".proto"):
                    found.setdefault(here / name, (here / name).relative_to(root).as_posix())
    return sorted(dict.fromkeys(found.values()))


def _is_passed_by(folder: Path) -> bool:
    """Return whether a folder is hidden, or holds what was installed."""
    return folder.name.startswith(".") or folder.name in _PASSED_BY or (folder / "pyvenv.cfg").is_file()


def _run(paths: list[Path], groups: list[list[str]]) -> "tuple[list[FileDescriptorSet], str]":
    """Return what the compiler makes of each group of files that it accepts, and what it says of the others.

    In a process of its own, for the compiler ends the one it runs in when something is very wrong; and in an empty
    folder, where no file is found but below the roots.
    """
    with tempfile.TemporaryDirectory() as scratch:
        options = [*(f"--proto_path={path}" for path in paths), "--include_imports"]
        targets = [Path(scratch) / f"{index}.binpb" for index in range(len(groups))]
        arguments = [
            ["protoc", *options, f"--descriptor_set_out={target}", *group]
            for target, group in zip(targets, groups, strict=True)
        ]
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", _PROTOC],
            input=json.dumps(arguments),
            cwd=scratch,
            capture_output=True,
            text=True,
            check=False,
        )
        return [_parse(target) for target in targets if target.exists()], done.stderr


def _few(said: str) -> str:
    """Return the first lines of what the compiler said, the causes before what follows from them."""
    lines = list(dict.fromkeys(line for line in said.splitlines() if "warning:" not in line))
    consequences = ("is not defined", "had errors", "seems to be defined")
    lines.sort(key=lambda line: any(words in line for words in consequences))
    more = len(lines) - _SHOWN
    return "\n".join(f"  {line}" for line in lines[:_SHOWN]) + (f"\n  and {more} lines more" if more > 0 else "")


def _well_known() -> list[str]:
    """Return the folders where google/protobuf/*.proto and google/rpc/*.proto are installed."""
    paths = []
    for package, inside in (("grpc_tools", "_proto"), ("google.rpc", "../..")):
        spec = find_spec(package)
        for place in spec.submodule_search_locations or () if spec else ():
            paths.append(str((Path(place) / inside).resolve()))
    return paths
