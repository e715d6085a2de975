"""Contracts that nobody here wrote, compiled as their owners would."""

from collections.abc import Callable
from pathlib import Path

import pytest

CONTRACTS = Path(__file__).parent / "contracts"


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """Compiles files of the folder of contracts to a FileDescriptorSet."""
    from grpc_tools import protoc  # type: ignore[import-untyped]

    def run(*names: str) -> bytes:
        out = tmp_path_factory.mktemp("contract") / "set.binpb"
        include = Path(protoc.__file__).parent / "_proto"
        arguments = [f"-I{CONTRACTS}", f"-I{include}", "--include_imports", f"--descriptor_set_out={out}"]
        assert protoc.main(["protoc", *arguments, *names]) == 0
        return out.read_bytes()

    return run
