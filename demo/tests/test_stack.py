"""Which port each process is told, and that the replicas do not fight for one."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from amends_demo.place import ShopFolder
from amends_demo.stack import Stack


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    nothing = SimpleNamespace()
    return Stack(ShopFolder(tmp_path), nothing, nothing, nothing)  # type: ignore[arg-type]


def test_a_port_of_the_environment_is_taken(stack: Stack) -> None:
    assert stack._port("orders", {"AMENDS_PORT_ORDERS": "4711"}) == "4711"
    assert stack._port("orders", {}) is None


def test_only_the_first_replica_gets_the_orchestrators_port(stack: Stack) -> None:
    environment = {"AMENDS_PORT_ORCHESTRATOR": "4711"}
    assert stack._port("orchestrator-2", environment) is None
    assert environment == {}
    assert stack._port("orchestrator-1", {"AMENDS_PORT_ORCHESTRATOR": "4711"}) == "4711"
    assert stack._port("orchestrator-2", {"AMENDS_PORT_ORCHESTRATOR_2": "4712"}) == "4712"


def test_a_process_that_starts_again_gets_the_port_it_had(stack: Stack) -> None:
    stack.reports["orders"] = {"grpc": "127.0.0.1:5005"}
    assert stack._port("orders", {}) == "5005"
