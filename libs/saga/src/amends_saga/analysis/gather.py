"""Collects what a saga needs from the contracts of its participants, and finds its input message there.

Called by the analysis.
"""

from collections.abc import Iterable, Mapping, Sequence

from amends_contracts.wellknown import ALWAYS, ENUM, SERVICE, well_known_names
from google.protobuf.descriptor_pb2 import EnumDescriptorProto

from amends_saga import codes
from amends_saga.analysis.resolve import Methods
from amends_saga.definition import InlineField, Node, Saga
from amends_saga.descriptors import Contracts, ContractSet, own_definitions
from amends_saga.descriptors.inline import INPUT_MESSAGE
from amends_saga.findings import Finding, OnFinding, choices, suggestion


def gather(saga: Saga, methods: Methods, extra: Mapping[str, ContractSet], report: OnFinding) -> tuple[Contracts, str]:
    """Return the merged contracts and the name of the input message, empty when there is none.

    `extra` are more sets to look for messages in, beside those of the participants, by the names that findings use.
    """
    contracts = Contracts()
    for service, (owner, given) in sorted(methods.sets.items()):
        contracts.take(owner, given.view(service))
    searched = [*methods.sets.values(), *extra.items()]
    search = _MessageSearch(contracts, searched, methods.complete, report)
    fields: tuple[InlineField, ...] | None = None
    named: dict[str, tuple[str, bool]] = {}
    if isinstance(saga.input, str):
        input_type = search.find(saga.input, saga.input_node)
    else:
        input_type = INPUT_MESSAGE
        nodes = {item.type: item.node for item in saga.input if "." in item.type}
        named = {name: search.kind(name) for name, node in nodes.items() if search.find(name, node)}
        fields = tuple(item for item in saga.input if item.type not in nodes or item.type in named)
    contracts.take(f"Saga {saga.metadata.full_name}", {made.name: made for made in own_definitions(fields, named)})
    return contracts, input_type


class _MessageSearch:
    """Looks for messages by name, and takes their definitions."""

    def __init__(
        self,
        contracts: Contracts,
        searched: Sequence[tuple[str, ContractSet]],
        complete: bool,
        report: OnFinding,
    ) -> None:
        self._contracts, self._searched = contracts, searched
        self._complete, self._report = complete, report

    def find(self, name: str, node: Node) -> str:
        """Take the definition of a message, and return its name; empty (and a finding) when there is none."""
        if self._contracts.find(name) is not None or _always(name):
            return name
        for owner, given in self._searched:
            if name in given.symbols and given.symbols[name][0][0] != SERVICE:
                self._contracts.take(owner, given.view(name))
                return name
        known_names = {symbol for _, given in self._searched for symbol in given.symbols}
        if not self._complete and suggestion(name, known_names) is None:
            return ""  # not reported: the missing contract has its own finding
        hint = choices(name, known_names, "Name a message of a service that the saga calls, or list the fields here.")
        self._report(node.finding(codes.UNKNOWN_MESSAGE, f"There is no message `{name[:120]}`.", hint))
        return ""

    def kind(self, name: str) -> tuple[str, bool]:
        """Return the definition that contains a found name, and whether it is an enum's."""
        found = self._contracts.find(name)
        if found is not None:
            return found[0].name, isinstance(found[1], EnumDescriptorProto)
        return name, well_known_names()[name][0] == ENUM


def _always(name: str) -> bool:
    return name in well_known_names() and well_known_names()[name][1] in ALWAYS


def quarrels(saga: Saga, contracts: Contracts, roots: Iterable[str]) -> list[Finding]:
    """Return the contradictions between the definitions that messages need."""
    node = saga.metadata.node.get("metadata") or saga.metadata.node
    found: list[Finding] = []
    for name in sorted(contracts.reached(roots)):
        conflict = contracts.conflicts.get(name)
        if conflict is not None:
            message = (
                f"`{conflict.symbol}` is not the same in the contracts of {conflict.first} and {conflict.second}: "
                f"{conflict.says_first} in the first, {conflict.says_second} in the second."
            )
            hint = "Give what both share one number, type and name; a new field needs a number of its own."
            found.append(node.finding(codes.DESCRIPTORS_CONFLICT, message, hint))
    return found
