"""Puts definitions of messages and enums into files again, because protobuf only knows them in files.

The participants' own file layout has no meaning, so these files follow from the definitions alone. Called when
contracts are merged, and by the compiler for the files that a run is pinned to.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from functools import partial
from typing import TypeVar

from amends_contracts.budget import DescriptorError
from amends_contracts.wellknown import well_known_file, well_known_names
from google.protobuf.descriptor_pb2 import EnumDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from amends_saga.descriptors.contracts import TypeDefinition

T = TypeVar("T", bound=Hashable)


def assemble(definitions: Mapping[str, TypeDefinition]) -> list[FileDescriptorProto]:
    """Return the definitions as files, sorted by name, one for each package and dialect.

    Packages that need each other are split into smaller files. Raises DescriptorError when two definitions of different
    packages need each other, which can happen only if several participants define them.
    """
    homes = {name: _home(found) for name, found in definitions.items()}
    together: dict[object, list[str]] = {}
    for name in sorted(definitions):
        together.setdefault(homes[name], []).append(name)

    def packages(home: object) -> Iterator[object]:
        return (homes[used] for name in together[home] for used in definitions[name].uses if used in homes)

    def inside(names: Collection[str], name: str) -> Iterator[str]:
        return (used for used in definitions[name].uses if used in names)

    parts: list[list[str]] = []
    for circle in _circles(together, packages):
        if len(circle) == 1:
            parts.append(together[circle[0]])
        else:
            names = sorted(name for home in circle for name in together[home])
            parts += [sorted(part) for part in _circles(names, partial(inside, set(names)))]
    file_of = {name: f"{part[0]}.proto" for part in parts for name in part}
    return sorted((_file(part, definitions, file_of) for part in parts), key=lambda file: file.name)


def build_pool(files: Iterable[FileDescriptorProto]) -> DescriptorPool:
    """Return a pool of the files, in any order. Raises DescriptorError when they contradict themselves."""
    by_name = {file.name: file for file in files}
    pool = DescriptorPool()
    for name in in_order(by_name):
        try:
            pool.AddSerializedFile(by_name[name].SerializeToString())
        except (TypeError, ValueError, KeyError) as error:
            raise DescriptorError(f"`{name}` cannot be used: {str(error).splitlines()[0][:200]}") from None
    return pool


def with_well_known(files: Iterable[FileDescriptorProto], always: Iterable[str]) -> dict[str, FileDescriptorProto]:
    """Return files by name, with the well-known files that they import, and those of `always`."""
    found = {file.name: file for file in files}
    waiting = [*always, *(name for file in found.values() for name in file.dependency)]
    while waiting:
        name = waiting.pop()
        known = well_known_file(name)
        if known is not None and name not in found:
            found[name] = known
            waiting.extend(known.dependency)
    return found


def in_order(files: dict[str, FileDescriptorProto]) -> Iterator[str]:
    """Yield the names, imports before importers. Raises DescriptorError for a cycle of imports."""
    done, waiting = set[str](), sorted(files, reverse=True)
    open_: set[str] = set()
    while waiting:
        name = waiting[-1]
        if name in done:
            waiting.pop()
            continue
        needed = [d for d in sorted(files[name].dependency) if d in files and d not in done]
        if not needed:
            done.add(name)
            yield name
        elif name in open_:
            raise DescriptorError(f"`{name}` imports itself through other files.")
        else:
            open_.add(name)
            waiting.extend(reversed(needed))


def _home(definition: TypeDefinition) -> tuple[str, str, int, bytes]:
    dialect = definition.dialect
    return definition.package, dialect.syntax, dialect.edition, dialect.features


def _file(
    names: list[str], definitions: Mapping[str, TypeDefinition], file_of: Mapping[str, str]
) -> FileDescriptorProto:
    first = definitions[names[0]]
    if any(_home(definitions[name]) != _home(first) for name in names):
        listed = " and ".join(f"`{name}`" for name in names[:2])
        raise DescriptorError(f"{listed} need each other, through what different participants say of them.")
    file = FileDescriptorProto(name=file_of[names[0]])
    if first.package:
        file.package = first.package
    first.dialect.write(file)
    needed = set[str]()
    for name in names:
        found = definitions[name]
        if isinstance(found.proto, EnumDescriptorProto):
            file.enum_type.add().CopyFrom(found.proto)
        else:
            file.message_type.add().CopyFrom(found.proto)
        needed |= {file_of[used] if used in file_of else well_known_names()[used][1] for used in found.uses}
    file.dependency.extend(sorted(needed - {file.name}))
    return file


def _circles(nodes: Collection[T], edges: Callable[[T], Iterable[T]]) -> list[list[T]]:
    """Return the nodes in groups: two are in one group when each leads to the other (Tarjan's algorithm)."""
    found: list[list[T]] = []
    index: dict[T, int] = {}
    lowest: dict[T, int] = {}
    path: list[T] = []
    on_path: set[T] = set()
    for root in nodes:
        if root in index:
            continue
        work = [(root, iter(edges(root)))]
        index[root] = lowest[root] = len(index)
        path.append(root)
        on_path.add(root)
        while work:
            node, rest = work[-1]
            following = next(rest, None)
            if following is None:
                work.pop()
                if work:
                    lowest[work[-1][0]] = min(lowest[work[-1][0]], lowest[node])
                if lowest[node] == index[node]:
                    start = path.index(node)
                    found.append(path[start:])
                    on_path.difference_update(path[start:])
                    del path[start:]
            elif following not in index:
                index[following] = lowest[following] = len(index)
                path.append(following)
                on_path.add(following)
                work.append((following, iter(edges(following))))
            elif following in on_path:
                lowest[node] = min(lowest[node], index[following])
    return found
