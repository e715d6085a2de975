"""`amends check` without a server: exit codes, places, contracts from files and folders, and speed."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from textwrap import indent

import pytest
from amends_cli import manifests
from amends_contracts import descriptor_set
from amends_testkit.answers import ScriptedAnswer
from grpc_tools import protoc

from amends.saga.v1 import definition_service_pb2 as api

EXAMPLE = Path(__file__).parents[2] / "examples" / "place-order"
GOOD = """\
apiVersion: amends.dev/v1alpha1
kind: Participant
metadata: {name: payments, namespace: shop}
spec: {service: shop.payments.v1.PaymentService, target: "127.0.0.1:1", methods: ["*"], callers: [shop]}
---
apiVersion: amends.dev/v1alpha1
kind: Saga
metadata: {name: pay, namespace: shop}
spec:
  input: shop.orders.v1.PlaceOrderInput
  deadline: 60s
  steps:
    - name: charge
      call: shop.payments.v1.PaymentService/Charge
      request: "ChargeRequest{order_id: input.order_id, amount: input.total, card_token: input.card_token}"
      compensate:
        call: shop.payments.v1.PaymentService/Refund
        request: "RefundRequest{order_id: input.order_id}"
"""
BAD = GOOD.replace("order_id: input.order_id, amount", "order_id: input.order_idd, amount")


@pytest.fixture(scope="module")
def contracts(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("contracts") / "set.binpb"
    path.write_bytes(descriptor_set().SerializeToString())
    return str(path)


async def test_a_sound_saga_is_ok(run, contracts, tmp_path: Path) -> None:
    (tmp_path / "saga.yaml").write_text(GOOD)
    result = await run("check", "--descriptors", contracts, "saga.yaml")
    figures, end = result.out.splitlines()
    assert (result.code, end) == (0, "ok: 1 file")
    assert figures.startswith("shop/pay: at worst 8s700ms to the point of no return (deadline: 1m)")
    assert figures.endswith("one call may become 4")


async def test_a_mistake_is_shown_with_its_line_a_caret_and_how_to_mend_it(run, contracts, tmp_path: Path) -> None:
    (tmp_path / "saga.yaml").write_text(BAD)
    result = await run("check", "--descriptors", contracts, "saga.yaml")
    lines = result.out.splitlines()
    assert result.code == 1
    assert lines[0].startswith("saga.yaml:15:")
    assert ": error AM" in lines[0]
    assert "order_idd" in lines[0]
    assert lines[2].startswith("15 |       request:")
    assert lines[3].index("^") == lines[2].index("order_idd")
    assert "order_id" in lines[4]
    assert lines[-1] == "1 error in 1 file"


async def test_findings_as_json_have_the_names_of_the_api(run, contracts, tmp_path: Path) -> None:
    (tmp_path / "saga.yaml").write_text(BAD)
    result = await run("check", "--descriptors", contracts, "-o", "json", "saga.yaml")
    (finding,) = json.loads(result.out)["findings"]
    assert set(finding) == {field.name for field in api.Finding.DESCRIPTOR.fields}
    assert (finding["severity"], finding["line"]) == ("error", 15)


async def test_wide_shows_what_each_step_may_cost(run, contracts, tmp_path: Path) -> None:
    (tmp_path / "saga.yaml").write_text(GOOD)
    result = await run("check", "--descriptors", contracts, "-o", "wide", "saga.yaml")
    assert result.out.startswith("shop/pay\n")
    assert "Refund (guarded)" in result.out
    assert "the deadline is 1m" in result.out


async def test_findings_are_written_for_code_scanning_too(run, contracts, tmp_path: Path) -> None:
    (tmp_path / "saga.yaml").write_text(BAD)
    result = await run("check", "--descriptors", contracts, "-o", "sarif", "saga.yaml")
    assert result.code == 1
    assert json.loads(result.out)["version"] == "2.1.0"


async def test_malformed_yaml_is_a_finding(run, contracts, tmp_path: Path) -> None:
    (tmp_path / "saga.yaml").write_text("kind: [unclosed\n")
    result = await run("check", "--descriptors", contracts, "saga.yaml")
    assert result.code == 1
    assert "saga.yaml:" in result.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.yaml"], "nowhere.yaml is not there"),
        (["--descriptors", "nowhere.binpb", "saga.yaml"], "nowhere.binpb cannot be read"),
        (["--descriptors", "saga.yaml", "saga.yaml"], "is no FileDescriptorSet"),
        (["--protos", "nowhere", "saga.yaml"], "nowhere is no folder"),
        (["--protos", ".", "saga.yaml"], "there is no .proto file"),
        (["empty"], "there is nothing to read"),
        ([], "missing argument"),
        (["--frobnicate", "saga.yaml"], "no such option"),
    ],
)
async def test_wrong_use_is_said_and_exits_with_2(run, tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "saga.yaml").write_text(GOOD)
    (tmp_path / "empty").mkdir()
    result = await run("check", *arguments)
    assert result.code == 2
    assert said in result.err


PROTO = """syntax = "proto3"; package toy.v1; import "google/protobuf/timestamp.proto";
service ToyService { rpc Play(PlayRequest) returns (PlayResponse) { option idempotency_level = IDEMPOTENT; } }
message PlayRequest { string id = 1; google.protobuf.Timestamp at = 2; } message PlayResponse {}
"""
TOY = """\
apiVersion: amends.dev/v1alpha1
kind: Participant
metadata: {name: toys}
spec: {service: toy.v1.ToyService, target: "127.0.0.1:1", methods: ["*"], callers: [default]}
---
apiVersion: amends.dev/v1alpha1
kind: Saga
metadata: {name: play}
spec:
  input: {id: string}
  deadline: 60s
  steps:
    - {name: play, pivot: true, call: toy.v1.ToyService/Play, request: "PlayRequest{id: input.id}"}
"""


async def test_contracts_are_compiled_from_a_folder(run, tmp_path: Path) -> None:
    (tmp_path / "protos" / "toy").mkdir(parents=True)
    (tmp_path / "protos" / "toy" / "toy.proto").write_text(PROTO)
    (tmp_path / "saga.yaml").write_text(TOY)
    result = await run("check", "--protos", "protos", "saga.yaml")
    assert (result.code, result.err) == (0, "")
    assert result.out.endswith("1 file\n")


async def test_contracts_that_do_not_compile_are_named_with_the_compilers_words(run, tmp_path: Path) -> None:
    (tmp_path / "toy.proto").write_text(PROTO.replace("PlayRequest {", "PlayReqest {"))
    (tmp_path / "saga.yaml").write_text(TOY)
    result = await run("check", "--protos", ".", "saga.yaml")
    assert result.code == 1
    assert '"PlayRequest" is not defined' in result.err


async def test_without_the_compiler_the_way_out_is_said(run, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "toy.proto").write_text(PROTO)
    (tmp_path / "saga.yaml").write_text(TOY)
    monkeypatch.setattr("amends_cli.descriptors.find_spec", lambda name: None)
    result = await run("check", "--protos", ".", "saga.yaml")
    assert result.code == 1
    assert "pip install grpcio-tools" in result.err


async def test_two_sets_that_contradict_each_other_are_named(run, contracts, tmp_path: Path) -> None:
    changed = descriptor_set()
    next(file for file in changed.file if file.name == "shop/payments/v1/payments.proto").message_type[0].field[
        0
    ].name = "other"
    (tmp_path / "other.binpb").write_bytes(changed.SerializeToString())
    (tmp_path / "saga.yaml").write_text(GOOD)
    result = await run("check", "--descriptors", contracts, "--descriptors", "other.binpb", "saga.yaml")
    assert result.code == 1
    assert "other.binpb contradict each other about shop.payments.v1.ChargeRequest: `string order_id = 1`" in result.err


async def test_each_service_may_have_a_file_of_the_same_name(run, tmp_path: Path) -> None:
    for name in ("toy", "game"):
        folder = tmp_path / name
        folder.mkdir()
        text = PROTO.replace("toy.v1", f"{name}.v1").replace("Toy", name.title())
        (folder / "service.proto").write_text(text.replace('"google', '"types.proto"; import "google'))
        extra = " int64 cents = 2;" if name == "game" else ""
        (folder / "types.proto").write_text(
            f'syntax = "proto3"; package shared.v1; message Price {{ int64 a = 1;{extra} }}'
        )
        arguments = [f"-I{folder}", f"-I{Path(protoc.__file__).parent / '_proto'}", "--include_imports"]
        out = tmp_path / f"{name}.binpb"
        assert protoc.main(["protoc", *arguments, f"--descriptor_set_out={out}", "service.proto"]) == 0
    game = TOY.partition("---")[0].replace("toys", "games").replace("toy.v1.Toy", "game.v1.Game")
    steps = "    - {name: win, call: game.v1.GameService/Play, request: 'PlayRequest{id: input.id}'}\n"
    (tmp_path / "saga.yaml").write_text(f"{game}---\n{TOY}{steps}")
    result = await run("check", "--descriptors", "toy.binpb", "--descriptors", "game.binpb", "saga.yaml")
    assert (result.code, result.err) == (0, "")


async def test_every_folder_is_a_root_and_what_does_not_compile_is_left_out(run, tmp_path: Path) -> None:
    for name, text in {
        "trips/toy.proto": PROTO.replace("import", 'import "validate/validate.proto"; import'),
        "trips/third_party/validate/validate.proto": 'syntax = "proto3"; package validate; message Rule {}',
        "trips/broken.proto": 'syntax = "proto3"; import "nowhere.proto";',
        "trips/.git/no.proto": "no",
        "trips/node_modules/x/no.proto": "no",
        "trips/venv/pyvenv.cfg": "",
        "trips/venv/lib/no.proto": "no",
        "saga.yaml": TOY,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for roots in (["trips", "trips/third_party"], ["trips/third_party", "trips"]):
        result = await run("check", *(word for root in roots for word in ("--protos", root)), "saga.yaml")
        assert result.code == 0
        assert 'Import "nowhere.proto" was not found' in result.err
        assert len(result.err.splitlines()) <= 4


async def test_without_contracts_the_orchestrator_checks(amends, orchestrator, tmp_path: Path) -> None:
    (tmp_path / "saga.yaml").write_text(GOOD)
    finding = api.Finding(
        code="AM001", severity=api.SEVERITY_WARNING, message="Look.", source="saga.yaml", line=3, column=1, excerpt="x"
    )
    orchestrator.script("CheckSaga", ScriptedAnswer.ok(api.CheckSagaResponse(findings=[finding])))
    result = await amends("check", "saga.yaml", "-n", "shop")
    (call,) = orchestrator.calls("CheckSaga")
    assert call.request.namespace == "shop"
    assert call.request.manifests[0].text == GOOD
    assert result.code == 0
    assert "saga.yaml:3:1: warning AM001: Look." in result.out
    assert result.out.endswith("1 warning in 1 file\n")


async def test_warnings_fail_a_strict_check_only(run, tmp_path: Path) -> None:
    (tmp_path / "toy.proto").write_text(PROTO)
    (tmp_path / "saga.yaml").write_text(TOY)
    lenient, strict = (
        await run("check", "--protos", ".", "saga.yaml"),
        await run("check", "--strict", "--protos", ".", "saga.yaml"),
    )
    assert (lenient.code, strict.code) == (0, 1)
    assert lenient.out == strict.out
    assert "warning AM" in strict.out


async def test_a_strict_check_of_a_saga_without_warnings_succeeds(run, contracts, tmp_path: Path) -> None:
    (tmp_path / "saga.yaml").write_text(GOOD)
    assert (await run("check", "--strict", "--descriptors", contracts, "saga.yaml")).code == 0


async def test_a_check_loads_no_network_library_and_is_quick(contracts) -> None:
    code = (
        "import sys; from amends_cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'grpc', 'asyncio', 'asyncpg', 'amends_orchestrator', 'rich'}\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & heavy))"
    )
    command = [sys.executable, "-c", code, "check", "--descriptors", contracts, str(EXAMPLE)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: ASYNC221
    assert done.stdout.splitlines()[-2:] == ["ok: 4 files", "[]"]
    # Compared with what it cannot do without: a busy machine is slow in both.
    needed = "import importlib.metadata, typer.main, pydantic.types, yaml, google.protobuf.json_format"
    assert processor_time(command) < 2.5 * processor_time([sys.executable, "-c", needed])


def processor_time(command: list[str]) -> float:
    """The shortest of three runs, in seconds of the processor."""
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(taken)


def test_data_in_json_beside_manifests_is_passed_by_in_a_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "saga.yaml").write_text(GOOD)
    (tmp_path / "order.json").write_text('{"orderId": "o-1"}')
    (tmp_path / "policy.json").write_text('{"apiVersion": "amends.dev/v1alpha1", "kind": "RetryPolicy"}')
    found = manifests.read_files([str(tmp_path)])
    assert [Path(text.source).name for text in found] == ["policy.json", "saga.yaml"]
    assert len(manifests.read_files([str(tmp_path / "order.json")])) == 1


def test_a_list_is_split_and_other_kinds_are_passed_by() -> None:
    items = "".join("- " + indent(part, "  ").lstrip() for part in GOOD.split("---\n"))
    config = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"
    found = manifests.split([manifests.Text("a.yaml", f"apiVersion: v1\nkind: List\nitems:\n{items}\n{config}")])
    assert [one.kind for one in found] == ["Participant", "Saga"]
    for one in found:
        assert [again.content for again in manifests.split([manifests.Text("b.yaml", one.text)])] == [one.content]
