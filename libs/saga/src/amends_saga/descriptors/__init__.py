"""Contracts: descriptor sets merged by message name, the promises of methods, and the part that a saga reaches."""

from amends_contracts.budget import DescriptorError

from amends_saga.descriptors.contracts import ContractSet, TypeDefinition, parse_set
from amends_saga.descriptors.facts import Facts, contract_facts, resolve_facts
from amends_saga.descriptors.files import build_pool, with_well_known
from amends_saga.descriptors.inline import DEFINITION_PACKAGE, RUN_MESSAGE, own_definitions
from amends_saga.descriptors.merge import Contracts
from amends_saga.descriptors.reach import reachable_files

__all__ = [
    "DEFINITION_PACKAGE",
    "RUN_MESSAGE",
    "ContractSet",
    "Contracts",
    "DescriptorError",
    "Facts",
    "TypeDefinition",
    "build_pool",
    "contract_facts",
    "own_definitions",
    "parse_set",
    "reachable_files",
    "resolve_facts",
    "with_well_known",
]
