"""Contracts that nobody here wrote, compiled as their owners would, and servers of other languages."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from google.type import money_pb2  # type: ignore[import-untyped]

from .builds import BUILD, Builds

CONTRACTS = Path(__file__).parent / "contracts"


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """Compiles files of the folder of contracts to a FileDescriptorSet."""
    from grpc_tools import protoc  # type: ignore[import-untyped]

    @cache
    def run(*names: str) -> bytes:
        out = tmp_path_factory.mktemp("contract") / "set.binpb"
        google = Path(money_pb2.__file__).parents[2]
        include = Path(protoc.__file__).parent / "_proto"
        arguments = [
            f"-I{CONTRACTS}",
            f"-I{include}",
            f"-I{google}",
            "--include_imports",
            f"--descriptor_set_out={out}",
        ]
        assert protoc.main(["protoc", *arguments, *names]) == 0
        return out.read_bytes()

    return run


@pytest.fixture(scope="session", autouse=True)
def builds(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, compiled: Callable[..., bytes]
) -> Iterator[Builds]:
    """The servers of other languages; their builds start with the first test, where any test wants one."""
    builds = Builds(tmp_path_factory.mktemp("servers"), compiled("stock.proto"))
    if any(item.get_closest_marker("foreign") for item in request.session.items):
        for language in BUILD:
            builds.start(language)
    try:
        yield builds
    finally:
        builds.stop()
