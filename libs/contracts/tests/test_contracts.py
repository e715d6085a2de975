"""What is generated is complete, and what the contracts say about themselves holds together."""

import importlib
from pathlib import Path

from amends_contracts import descriptor_set
from google.protobuf.descriptor_pb2 import MethodOptions

from amends.options.v1 import options_pb2

PROTOS = Path(__file__).resolve().parents[3] / "protos"


def methods():
    """Every method of the contracts with its service, as (file, service, method)."""
    for file in descriptor_set().file:
        for service in file.service:
            for method in service.method:
                yield file, service, method


def contract(method):
    return method.options.Extensions[options_pb2.method]


def test_the_descriptor_set_has_every_file_and_everything_that_it_imports():
    files = {file.name: file for file in descriptor_set().file}
    assert {str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto")} <= set(files)
    for file in files.values():
        assert set(file.dependency) <= set(files)


def test_every_file_has_code_and_every_service_has_stubs():
    for file in descriptor_set().file:
        if file.package.startswith("google."):
            continue
        module = file.name.removesuffix(".proto").replace("/", ".")
        importlib.import_module(f"{module}_pb2")
        if file.service:
            stubs = importlib.import_module(f"{module}_pb2_grpc")
            assert all(hasattr(stubs, f"{service.name}Stub") for service in file.service)


def test_comments_are_kept_for_whoever_reads_descriptors():
    file = next(file for file in descriptor_set().file if file.name == "amends/saga/v1/run.proto")
    assert any(location.leading_comments for location in file.source_code_info.location)


def test_what_undoes_a_method_is_a_guarded_method_of_the_same_service():
    pairs = 0
    for _file, service, method in methods():
        undo = contract(method).compensated_by
        if undo:
            other = next(candidate for candidate in service.method if candidate.name == undo)
            assert contract(method).guarded == contract(other).guarded
            pairs += 1
    assert pairs


NOT_TWICE = {
    "IdentityService/SignIn": "begins another session each time",
    "IdentityService/Refresh": "a refresh token is good once, and ends its session when it comes again",
}
"""Methods that do more when they are repeated, and why."""


def test_every_method_of_the_shop_says_what_it_promises():
    silent = [
        f"{service.name}/{method.name}"
        for file, service, method in methods()
        if file.package.startswith("shop.")
        and not contract(method).guarded
        and method.options.idempotency_level == MethodOptions.IDEMPOTENCY_UNKNOWN
    ]
    assert set(silent) == set(NOT_TWICE)
