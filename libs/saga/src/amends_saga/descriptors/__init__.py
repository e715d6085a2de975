"""Contracts: descriptor sets merged into one pool per saga, what methods promise, and what of it a saga reaches."""

from amends_saga.descriptors.budget import DescriptorError
from amends_saga.descriptors.contracts import Contracts, ContractSet, parse_set
from amends_saga.descriptors.facts import Facts, contract_facts, resolve_facts
from amends_saga.descriptors.inline import DEFINITION_PACKAGE, RUN_MESSAGE, definition_file
from amends_saga.descriptors.reach import reachable_files

__all__ = [
    "DEFINITION_PACKAGE",
    "RUN_MESSAGE",
    "ContractSet",
    "Contracts",
    "DescriptorError",
    "Facts",
    "contract_facts",
    "definition_file",
    "parse_set",
    "reachable_files",
    "resolve_facts",
]
