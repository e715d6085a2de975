"""What an image is made of, and what a change touches."""

import ast
import re
from pathlib import Path

import lock
import pytest
from amends_delivery import inputs
from amends_delivery.running import DeliveryError

ROOT = Path(__file__).resolve().parents[2]
REAL = inputs.deployables(ROOT)
GENERATED = re.compile(r"((?:amends|shop)\.[a-z]+(?:\.events)?)\.v1")


def tag(repository, name="orders", **more):
    return inputs.tag(repository.root, inputs.deployables(repository.root)[name], **more)


def touched(repository, base="HEAD"):
    return list(inputs.affected(repository.root, base))


def test_the_tag_is_the_same_for_the_same_inputs(repository, tmp_path):
    before = tag(repository)
    repository.git("clone", "--quiet", str(repository.root), str(tmp_path / "clone"))
    other = type(repository)(tmp_path / "clone")
    assert tag(other) == before
    assert re.fullmatch(r"[0-9a-f]{12}", before)


@pytest.mark.parametrize(
    "name",
    ["services/orders/src/main.py", "services/orders/Dockerfile", "libs/common/common.py", "protos/a/a.proto"],
)
def test_a_change_of_an_input_changes_the_tag(repository, name):
    before = tag(repository)
    path = repository.root / name
    path.write_text(path.read_text() + "\n")
    assert tag(repository) != before


@pytest.mark.parametrize(
    "name",
    [
        "services/orders/tests/test_main.py",
        "services/orders/README.md",
        "services/payments/src/main.py",
        "protos/b/b.proto",
        "libs/unused/unused.py",
        "libs/common/gen/made.py",
        "services/orders/src/__pycache__/main.pyc",
    ],
)
def test_a_change_of_anything_else_does_not(repository, name):
    before = tag(repository)
    repository.write(name, "changed\n")
    assert tag(repository) == before


def test_a_new_file_a_gone_file_and_an_executable_bit_change_the_tag(repository):
    tags = [tag(repository)]
    new = repository.write("libs/common/new.py")
    tags.append(tag(repository))
    new.chmod(0o755)
    tags.append(tag(repository))
    (repository.root / "services/orders/src/main.py").unlink()
    tags.append(tag(repository))
    assert len(set(tags)) == 4


def test_another_base_image_is_another_tag(repository):
    assert tag(repository, base="python:3.14-slim") != tag(repository)


def test_a_dockerfile_that_copies_nothing_is_refused(repository):
    path = repository.root / "services/orders/Dockerfile"
    path.write_text(path.read_text().replace("libs/common libs/common", "libs/absent libs/absent"))
    with pytest.raises(DeliveryError, match="libs/absent"):
        tag(repository)


def test_an_unknown_deployable_is_answered_with_those_that_there_are(repository):
    with pytest.raises(DeliveryError, match="ordres") as failure:
        inputs.named(repository.root, ["ordres"])
    assert "orders, payments" in failure.value.hint


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("services/orders/src/main.py", ["orders"]),
        ("services/orders/src/new.py", ["orders"]),
        ("protos/b/b.proto", ["payments"]),
        ("libs/common/common.py", ["orders", "payments"]),
        ("tools/image-install", ["orders", "payments"]),
        ("charts/orders/values.yaml", ["orders"]),
        ("charts/microservice/values.yaml", ["orders", "payments"]),
        ("libs/unused/unused.py", []),
        ("services/orders/tests/test_main.py", []),
        ("services/orders/README.md", []),
        ("README.md", []),
        ("services/orders-old/main.py", []),
    ],
)
def test_a_change_touches_who_has_a_part_in_it(repository, name, expected):
    repository.write(name, "changed\n")
    assert touched(repository) == expected


def test_a_chart_that_stands_alone_is_not_touched_by_the_library_chart(repository):
    repository.write("charts/orders/Chart.yaml", "name: orders\n")
    base = repository.commit()
    repository.write("charts/microservice/values.yaml", "changed\n")
    assert touched(repository, base) == ["payments"]


def test_what_was_committed_since_counts_too_and_a_revision_is_enough(repository):
    first = repository.git("rev-parse", "HEAD")
    repository.write("protos/a/a.proto", "changed\n")
    repository.commit()
    assert touched(repository) == []
    assert touched(repository, first) == ["orders"]


def test_a_file_that_moves_touches_whom_it_leaves_and_whom_it_joins(repository):
    repository.git("mv", "protos/a/a.proto", "protos/b/c.proto")
    repository.commit()
    assert touched(repository, "HEAD~1") == ["orders", "payments"]


def test_an_unknown_revision_is_refused_with_the_way_to_name_one(repository):
    with pytest.raises(DeliveryError) as failure:
        touched(repository, "no-such-branch")
    assert "BASE=" in failure.value.hint


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("services/orders/src/main.py", ["services/orders"]),
        ("services/orders/tests/test_main.py", ["services/orders"]),
        ("libs/common/common.py", ["services/orders", "services/payments"]),
        ("charts/payments/values.yaml", ["services/payments"]),
        ("docs/page.md", []),
        ("requirements.lock", ["."]),
    ],
)
def test_only_the_tests_of_what_a_change_concerns_are_run(repository, name, expected):
    for folder in ("services/orders", "services/payments"):
        repository.write(f"{folder}/pyproject.toml")
    repository.commit()
    repository.write(name, "changed\n")
    assert inputs.folders_of_tests(repository.root, "HEAD") == expected


# ---------------------------------------------------------------- this repository


def needed_protos(folders):
    """The folders below protos/ that the code imports, and what those import."""
    found, pending = set(), set()
    for folder in folders:
        for path in (ROOT / folder).rglob("src/**/*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                pending |= {one[1].replace(".", "/") for name in names if (one := GENERATED.match(name))}
    while pending:
        name = pending.pop()
        found.add(name)
        for path in (ROOT / "protos" / name).rglob("*.proto"):
            imported = re.findall(r'^import "((?:amends|shop)/[a-z]+(?:/events)?)/v1/', path.read_text(), re.MULTILINE)
            pending |= set(imported) - found
    return found


@pytest.mark.parametrize("deployable", REAL.values(), ids=lambda one: one.name)
def test_an_image_has_the_libraries_that_its_package_needs_and_no_other(deployable):
    local = {one.name: one for one in lock.distributions(ROOT)}
    (package,) = (one for one in local.values() if one.folder == ROOT / deployable.folder)
    needed = {one.folder.relative_to(ROOT).as_posix() for one in lock.closure(package, local)}
    copied = {name for name in deployable.inputs if name.startswith("libs/") or name == deployable.folder}
    assert copied == needed


@pytest.mark.parametrize("deployable", REAL.values(), ids=lambda one: one.name)
def test_an_image_has_the_contracts_that_its_code_imports_and_no_others_of_the_shop(deployable):
    folders = [name for name in deployable.inputs if name.startswith("libs/") or name == deployable.folder]
    needed = {f"protos/{name}" for name in needed_protos(folders)}
    copied = {name for name in deployable.inputs if name.startswith("protos/")}
    missing = {one for one in needed if not any(one == name or one.startswith(f"{name}/") for name in copied)}
    assert missing == set()
    assert {name for name in copied if name.startswith("protos/shop")} <= needed


def test_a_contract_of_one_service_touches_that_service_and_who_calls_it():
    def by(name):
        return {one.name for one in REAL.values() if any(name.startswith(f"{path}/") for path in one.inputs)}

    assert by("protos/shop/payments/v1/payments.proto") == {"orders", "payments"}
    assert by("protos/shop/inventory/v1/inventory.proto") == {"gateway", "inventory", "orders"}
    assert by("libs/saga/src/amends_saga/plan.py") == {"monitor", "orchestrator"}


def test_every_deployable_has_a_chart_and_a_file_in_kind():
    for name in REAL:
        assert (ROOT / "charts" / name / "Chart.yaml").exists(), name
        assert name == "git-server" or (ROOT / "argocd/envs/kind" / f"{name}.yaml").exists(), name
