"""Which methods are guarded is read from their options; how calls are read needs no database."""

from pathlib import Path

import pytest
from amends_barrier import Barrier, BarrierError, Guarded, Reason, guarded_methods
from amends_barrier.protocol import KEY, KEY_FORM, Operation, digest, read
from amends_barrier.rows import Scripts
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto
from hypothesis import given
from hypothesis import strategies as st

from amends.options.v1 import options_pb2


def service(**methods: options_pb2.MethodContract | None) -> FileDescriptorSet:
    file = FileDescriptorProto(name="t.proto", package="t.v1")
    declared = file.service.add(name="Ledger")
    for name, contract in methods.items():
        method = declared.method.add(name=name)
        if contract is not None:
            method.options.Extensions[options_pb2.method].CopyFrom(contract)
    return FileDescriptorSet(file=[file])


def contract(guarded: bool = True, compensated_by: str = "") -> options_pb2.MethodContract:
    return options_pb2.MethodContract(guarded=guarded, compensated_by=compensated_by)


def test_guarded_methods_and_who_undoes_whom_come_from_the_options() -> None:
    descriptors = service(
        Charge=contract(compensated_by="Refund"),
        ChargeTwice=contract(compensated_by="Refund"),
        Refund=contract(),
        Look=None,
        Plain=contract(guarded=False, compensated_by="Refund"),
    )
    expected = {
        "/t.v1.Ledger/Charge": Guarded(compensated_by="Refund"),
        "/t.v1.Ledger/ChargeTwice": Guarded(compensated_by="Refund"),
        "/t.v1.Ledger/Refund": Guarded(compensates=("Charge", "ChargeTwice")),
    }
    assert guarded_methods(descriptors, ["t.v1.Ledger"]) == expected
    assert Barrier.from_descriptors(None, descriptors, ["t.v1.Ledger"]).methods == expected  # type: ignore[arg-type]


def test_descriptors_read_before_the_option_was_known_say_the_same() -> None:
    method = MethodDescriptorProto(name="Charge")
    # Field 51706 of the options, length-delimited, holding guarded = true.
    method.options.MergeFromString(b"\xd2\x9f\x19\x02\x10\x01")
    descriptors = FileDescriptorSet()
    descriptors.file.add(name="t.proto", package="t.v1").service.add(name="Ledger", method=[method])
    assert list(guarded_methods(descriptors, ["t.v1.Ledger"])) == ["/t.v1.Ledger/Charge"]


def test_a_service_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"no service t\.v1\.Legder"):
        guarded_methods(service(), ["t.v1.Legder"])


@pytest.mark.parametrize("undo", [{}, {"Refund": None}, {"Refund": contract(guarded=False)}])
def test_a_guarded_action_needs_a_guarded_compensation(undo) -> None:
    with pytest.raises(ValueError, match="compensated by Refund, which is no guarded method"):
        guarded_methods(service(Charge=contract(compensated_by="Refund"), **undo), ["t.v1.Ledger"])


@pytest.mark.parametrize("side", ["client_streaming", "server_streaming"])
def test_a_stream_cannot_be_guarded(side: str) -> None:
    descriptors = service(Charge=contract())
    setattr(descriptors.file[0].service[0].method[0], side, True)
    with pytest.raises(ValueError, match="is a stream"):
        guarded_methods(descriptors, ["t.v1.Ledger"])


@given(st.text() | st.binary())
def test_a_key_that_could_end_a_literal_never_reaches_a_script(key) -> None:
    if isinstance(key, str) and KEY_FORM.fullmatch(key):
        assert not set("'\\; \n$\0") & set(key)
        assert read([(KEY, key)]) is not None
    else:
        with pytest.raises(BarrierError) as refused:
            read([(KEY, key)])
        assert refused.value.reason is Reason.CALL_INVALID


@given(st.binary(), st.binary())
def test_a_script_holds_what_it_was_given_and_nothing_else(one: bytes, other: bytes) -> None:
    scripts = Scripts("token")
    script = scripts.finish("k-1", Operation.ACTION, one)
    assert (script.count("'"), script.count(";")) == (6, 1)
    assert (script == scripts.finish("k-1", Operation.ACTION, other)) is (one == other)


@given(st.tuples(st.text(), st.binary()), st.tuples(st.text(), st.binary()))
def test_a_digest_tells_methods_and_requests_apart(one: tuple[str, bytes], other: tuple[str, bytes]) -> None:
    paths = [f"/{method.replace(chr(0), '').encode('ascii', 'ignore').decode()}" for method, _ in (one, other)]
    same = paths[0] == paths[1] and one[1] == other[1]
    assert (digest(paths[0], one[1]) == digest(paths[1], other[1])) is same


def test_every_reason_has_a_status_with_itself_in_the_error_info() -> None:
    for reason in Reason:
        refusal = BarrierError(reason)
        name, value = refusal.trailer()
        assert name == "grpc-status-details-bin"
        assert reason.encode() in value
        assert b"amends.dev" in value


def test_the_readme_names_every_reason_and_every_name_on_the_wire() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text()
    names = ["amends-idempotency-key", "amends-operation", "amends-void-of", "amends-action-outcome"]
    for name in [*names, "amends-barrier: 1", "amends-void: voided", "amends-void: already-done", *Reason]:
        assert f"`{name}`" in text
