"""What a contract may hold: each limit is told by its figure, and long before a library would suffer."""

import time

import pytest
from amends_contracts import descriptor_set
from amends_contracts.budget import BudgetError, ContractBudget, imports_of, join_files
from amends_saga.analysis import ParticipantView
from amends_saga.check import check
from amends_saga.definition import Document, read
from amends_saga.descriptors import DescriptorError, parse_set
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

EMPTY_MESSAGE = b"\x22\x00"
EMPTY_FILE = b"\x0a\x00"


def one_file(file: FileDescriptorProto) -> bytes:
    return FileDescriptorSet(file=[file]).SerializeToString()


def a_message() -> tuple[FileDescriptorProto, DescriptorProto]:
    file = FileDescriptorProto(name="a.proto", syntax="proto3")
    return file, file.message_type.add(name="M")


def reserved_ranges() -> bytes:
    file, message = a_message()
    for i in range(1_001):
        message.reserved_range.add(start=2 * i + 10, end=2 * i + 11)
    return one_file(file)


def extension_ranges() -> bytes:
    file, message = a_message()
    for i in range(1_001):
        message.extension_range.add(start=2 * i + 10, end=2 * i + 11)
    return one_file(file)


def reserved_names() -> bytes:
    file, message = a_message()
    message.reserved_name.extend(f"n{i}" for i in range(1_001))
    return one_file(file)


def reserved_of_an_enum() -> bytes:
    file = FileDescriptorProto(name="a.proto")
    enum = file.enum_type.add(name="E")
    for i in range(1_001):
        enum.reserved_range.add(start=2 * i + 10, end=2 * i + 10)
    return one_file(file)


def enum_values() -> bytes:
    file = FileDescriptorProto(name="a.proto")
    enum = file.enum_type.add(name="E")
    for i in range(60_001):
        enum.value.add(name=f"V{i}", number=i)
    return one_file(file)


def fields() -> bytes:
    file, message = a_message()
    for i in range(60_001):
        message.field.add(name=f"f{i}", number=i + 1)
    return one_file(file)


def methods() -> bytes:
    file = FileDescriptorProto(name="a.proto")
    for i in range(11):
        service = file.service.add(name=f"S{i}")
        for j in range(950):
            service.method.add(name=f"M{j}")
    return one_file(file)


def methods_of_one() -> bytes:
    file = FileDescriptorProto(name="a.proto")
    service = file.service.add(name="S")
    for i in range(1_001):
        service.method.add(name=f"M{i}")
    return one_file(file)


def nested() -> bytes:
    file, message = a_message()
    for i in range(9):
        message = message.nested_type.add(name=f"N{i}")
    return one_file(file)


def long_name() -> bytes:
    return one_file(FileDescriptorProto(name="a.proto", package="p" * 256))


def imports() -> bytes:
    return one_file(FileDescriptorProto(name="a.proto", dependency=[f"{i}.proto" for i in range(20_001)]))


def empty_messages() -> bytes:
    return join_files([EMPTY_MESSAGE * 20_001])


def places() -> bytes:
    file = FileDescriptorProto(name="a.proto")
    file.source_code_info.MergeFromString(EMPTY_FILE * 500_001)
    return one_file(file)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (reserved_ranges, "One message, enum or service has more than 1,000 reserved ranges."),
        (extension_ranges, "One message, enum or service has more than 1,000 extension ranges."),
        (reserved_names, "One message, enum or service has more than 1,000 reserved names."),
        (reserved_of_an_enum, "One message, enum or service has more than 1,000 reserved ranges."),
        (enum_values, "The contract has more than 60,000 enum values."),
        (fields, "The contract has more than 60,000 fields."),
        (methods, "The contract has more than 10,000 methods."),
        (methods_of_one, "One message, enum or service has more than 1,000 methods."),
        (nested, "The contract has messages that are nested deeper than 8."),
        (long_name, "The contract has a name of 256 bytes, more than 255."),
        (imports, "The contract has more than 20,000 imports."),
        (empty_messages, "The contract has more than 20,000 messages."),
        (places, "The contract has more than 500,000 values."),
        (lambda: EMPTY_FILE * 2_001, "The contract has more than 2,000 files."),
        (lambda: b"\0" * (8 * 1024 * 1024 + 1), "The contract has 8,388,609 bytes, more than 8,388,608."),
    ],
)
def test_a_contract_over_a_limit_is_refused_with_the_figure(data, says: str):
    with pytest.raises(DescriptorError) as refused:
        parse_set(data())
    assert str(refused.value) == says


def test_a_real_contract_is_within_all_limits():
    budget = ContractBudget()
    budget.take_set(descriptor_set().SerializeToString())
    assert budget.counts["google.protobuf.FileDescriptorProto"] == len(descriptor_set().file)
    assert budget.counts["google.protobuf.MethodDescriptorProto"] == sum(
        len(service.method) for file in descriptor_set().file for service in file.service
    )


def test_the_figures_are_those_of_the_parsed_set():
    file, message = a_message()
    for i in range(300):
        message.field.add(name=f"f{i}", number=i + 1, json_name="j" * 200)
    message.nested_type.add(name="N").enum_type.add(name="E").value.add(name="V", number=-1)
    budget = ContractBudget()
    budget.take_set(one_file(file))
    assert (
        budget.counts["google.protobuf.FieldDescriptorProto"],
        budget.counts["google.protobuf.DescriptorProto"],
    ) == (
        300,
        2,
    )
    assert budget.counts["google.protobuf.EnumValueDescriptorProto"] == 1


@pytest.mark.parametrize("data", [b"\xff" * 100, b"\x0a\xff\xff\xff\x7f", b"\x0a", b"\x80" * 20, b"\x0b\x0c", b"\x07"])
def test_bytes_that_are_no_contract_end_the_count_and_are_refused_by_the_parser(data: bytes):
    ContractBudget().take_set(data)
    with pytest.raises(DescriptorError, match=r"no google.protobuf.FileDescriptorSet|no files|no UTF-8"):
        parse_set(data)


def test_the_worst_contract_of_four_megabytes_is_counted_in_a_moment():
    began = time.process_time()
    with pytest.raises(BudgetError):
        ContractBudget().take_set(join_files([EMPTY_MESSAGE * 2_000_000]))
    assert time.process_time() - began < 1


def test_name_and_imports_of_a_file_are_read_without_parsing_it():
    for file in descriptor_set().file:
        assert imports_of(file.SerializeToString()) == (file.name, list(file.dependency))
    assert FileDescriptorSet.FromString(join_files([f.SerializeToString() for f in descriptor_set().file])) == (
        descriptor_set()
    )


PARTICIPANT = """
apiVersion: amends.dev/v1alpha1
kind: Participant
metadata: {name: deep, namespace: shop}
spec: {service: deep.v1.Deep, target: "127.0.0.1:1", methods: ["*"], callers: [shop]}
"""
SAGA = """
apiVersion: amends.dev/v1alpha1
kind: Saga
metadata: {name: deep, namespace: shop}
spec:
  input: {a: string}
  deadline: 60s
  steps:
    - {name: s, pivot: true, call: deep.v1.Deep/Do, request: "M0{a: input.a}"}
"""


def a_chain(length: int, *, closed: bool = False) -> ParticipantView:
    """A Participant whose messages each lead to the next one, and the last to the first when `closed`."""
    file = FileDescriptorProto(name="deep.proto", package="deep.v1", syntax="proto3")
    for i in range(length):
        message = file.message_type.add(name=f"M{i}")
        message.field.add(name="a", number=1, label=1, type=9)
        if i + 1 < length or closed:
            message.field.add(name="z", number=2, label=1, type=11, type_name=f".deep.v1.M{(i + 1) % length}")
    file.service.add(name="Deep").method.add(name="Do", input_type=".deep.v1.M0", output_type=".deep.v1.M0")
    return ParticipantView(read([Document("p", PARTICIPANT)]).participants[0], one_file(file))


@pytest.mark.parametrize("closed", [False, True])
def test_a_chain_of_messages_too_long_for_the_runtime_is_a_finding(closed: bool):
    result = check([Document("s", SAGA)], participants=[a_chain(2_000, closed=closed)])
    [error] = [finding for finding in result.findings if finding.is_error]
    assert (error.code, error.message) == ("AM026", "Its messages lead to each other further than 350 deep.")
    assert not result.sagas


@pytest.mark.parametrize("closed", [False, True])
def test_a_chain_within_the_limit_runs(closed: bool):
    [saga] = check([Document("s", SAGA)], participants=[a_chain(350, closed=closed)]).sagas
    assert saga.parse_input({"a": "x"})


def test_texts_that_are_read_together_share_one_budget():
    many = [Document(f"{i}.yaml", "[" + "[]," * 40_000 + "]") for i in range(3)]
    assert all(finding.code != "AM003" for finding in read(many[:2]).findings)
    [finding] = [finding for finding in read(many).findings if finding.code == "AM003"]
    assert finding.message == "All texts together have more than 100,000 values."
    long = [Document(f"{i}.yaml", "#" * 1_400_000) for i in range(3)]
    [finding] = read(long).findings
    assert finding.message == "All texts together have 4,200,000 characters, more than 4,000,000."
