"""Gathers the files that a saga needs from the contracts of its participants, and finds its input message in them.

Called by the analysis.
"""

from collections.abc import Sequence

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

from amends_saga import codes
from amends_saga.analysis.resolve import Methods
from amends_saga.definition import InlineField, Node, Saga
from amends_saga.descriptors import Contracts, ContractSet, definition_file
from amends_saga.descriptors.inline import INPUT_MESSAGE
from amends_saga.descriptors.wellknown import ALWAYS, well_known_file
from amends_saga.findings import Finding, choices, suggestion


def gather(
    saga: Saga, methods: Methods, extra: Sequence[ContractSet], findings: list[Finding]
) -> tuple[Contracts, str]:
    """Return the merged files and the name of the input message, empty when there is none.

    `extra` are sets to look for messages in beside those of the participants.
    """
    services = methods.sets
    contracts = Contracts()
    for service in sorted(services):
        contracts.take(services[service], [services[service].symbols[service]])
    searched = [*dict.fromkeys(services[name] for name in sorted(services)), *extra]
    search = _Search(contracts, searched, methods.complete, findings)
    fields: tuple[InlineField, ...] = ()
    enums, imports = frozenset[str](), list[str]()
    if isinstance(saga.input, str):
        input_type = search.find(saga.input, saga.input_node)
    else:
        input_type = INPUT_MESSAGE
        named = {item.type: item.node for item in saga.input if "." in item.type}
        found = {name: search.find(name, node) for name, node in named.items()}
        fields = tuple(item for item in saga.input if item.type not in found or found[item.type])
        imports = [search.file_of(name) for name in found if found[name]]
        enums = frozenset(name for name in found if search.is_enum(name))
    for name in ALWAYS:
        known = well_known_file(name)
        if known is not None:
            contracts.files.setdefault(name, known)
    file = definition_file(fields, enums, imports)
    if not isinstance(saga.input, str) and not fields:
        file.message_type.add(name="Input")
    contracts.files[file.name] = file
    _quarrels(saga, contracts, findings)
    return contracts, input_type


class _Search:
    """Looks for messages by name, and takes the files that define them."""

    def __init__(
        self, contracts: Contracts, searched: Sequence[ContractSet], complete: bool, findings: list[Finding]
    ) -> None:
        self._contracts, self._searched = contracts, searched
        self._complete, self._findings = complete, findings

    def find(self, name: str, node: Node) -> str:
        """Take the file that defines a message, and return the name; empty (and a finding) when none does."""
        if self.file_of(name):
            return name
        for given in self._searched:
            if name in given.symbols:
                self._contracts.take(given, [given.symbols[name]])
                return name
        for file_name in ALWAYS:
            known = well_known_file(file_name)
            if known is not None and _defines(known, name):
                self._contracts.files.setdefault(file_name, known)
                return name
        known_names = {symbol for given in self._searched for symbol in given.symbols}
        if not self._complete and suggestion(name, known_names) is None:
            return ""  # it may be in the contract that could not be had, which has a finding of its own
        hint = choices(name, known_names, "Name a message of a service that the saga calls, or list the fields here.")
        self._findings.append(node.finding(codes.UNKNOWN_MESSAGE, f"There is no message `{name[:120]}`.", hint))
        return ""

    def file_of(self, name: str) -> str:
        """Return the file, of those taken, that defines a message or enum; empty when none does."""
        return next((file.name for file in self._contracts.files.values() if _defines(file, name)), "")

    def is_enum(self, name: str) -> bool:
        """Tell whether a name, whose file was taken, is that of an enum."""
        file = self._contracts.files.get(self.file_of(name))
        if file is None:
            return False
        *outer, last = name[len(_prefix(file)) :].split(".")
        messages, enums = file.message_type, file.enum_type
        for part in outer:
            scope = next((item for item in messages if item.name == part), DescriptorProto())
            messages, enums = scope.nested_type, scope.enum_type
        return any(item.name == last for item in enums)


def _prefix(file: FileDescriptorProto) -> str:
    return f"{file.package}." if file.package else ""


def _defines(file: FileDescriptorProto, name: str) -> bool:
    prefix = _prefix(file)
    first = name[len(prefix) :].split(".")[0]
    return name.startswith(prefix) and (
        any(message.name == first for message in file.message_type) or any(e.name == first for e in file.enum_type)
    )


def _quarrels(saga: Saga, contracts: Contracts, findings: list[Finding]) -> None:
    node = saga.metadata.node.get("metadata") or saga.metadata.node
    for conflict in contracts.conflicts:
        message = f"{conflict.what} is not the same in the contracts of {conflict.first} and {conflict.second}."
        hint = "Build both services with the same version of the file."
        findings.append(node.finding(codes.DESCRIPTORS_CONFLICT, message, hint))
    for owner, name in contracts.missing:
        message = f"The descriptors of {owner} import `{name}`, which they do not hold."
        hint = "Make them with protoc --include_imports."
        findings.append(node.finding(codes.DESCRIPTORS_BROKEN, message, hint))
