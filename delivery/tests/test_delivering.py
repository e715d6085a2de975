"""What stands before a cluster: the checks with their words, the commits that deploy, the manifest of Argo CD."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from amends_delivery import images
from amends_delivery.kind import argocd, git, place, secrets
from amends_delivery.kind.place import KindCluster
from amends_delivery.kind.ship import ship
from amends_delivery.running import DeliveryError, run
from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]


def test_a_program_that_fails_is_named_with_the_end_of_what_it_said():
    with pytest.raises(DeliveryError) as failure:
        run("sh", "-c", "for n in $(seq 100); do echo line $n >&2; done; exit 3", hint="mend it so")
    assert "line 100" in failure.value.message
    assert "line 10\n" not in failure.value.message
    assert failure.value.hint == "mend it so"


def test_a_program_that_is_missing_is_named():
    with pytest.raises(DeliveryError, match="no-such-program"):
        run("no-such-program")


def test_no_engine_is_answered_with_the_way_to_start_one(program):
    program("docker", 'echo "Cannot connect to the Docker daemon" >&2; exit 1')
    with pytest.raises(DeliveryError, match="no container engine answers: Cannot connect") as failure:
        images.check_engine()
    assert "apt-get install docker.io" in failure.value.hint


def test_a_missing_program_is_answered_with_the_page_that_has_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeliveryError, match="docker") as failure:
        place.check_programs()
    assert "https://docs.docker.com" in failure.value.hint


def test_a_port_that_is_taken_is_named_with_the_way_to_find_by_whom():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DeliveryError, match=f"port {port} of 127.0.0.1 is taken") as failure:
            place.check_port(port)
        assert f"sport = :{port}" in failure.value.hint
    place.check_port(port)


def test_an_engine_with_little_memory_is_refused_with_both_figures(program):
    program("docker", "echo 2147483648")
    with pytest.raises(DeliveryError, match=r"2\.0 GiB of memory, and the shop needs 5"):
        place.check_memory()


def test_the_cluster_is_that_of_kind_config(monkeypatch):
    assert KindCluster.read(ROOT).name == "amends"
    assert 7400 in KindCluster.read(ROOT).ports
    monkeypatch.setenv("AMENDS_KIND_NAME", "other")
    assert KindCluster.read(ROOT).name == "other"
    assert KindCluster.read(ROOT).command("get", "pods") == ("kubectl", "--context", "kind-other", "get", "pods")


def test_a_tag_is_written_where_it_is_and_everything_else_stays():
    text = "deploy: {chart: orders, namespace: shop}  # why\nimage: {tag: none}\ngrpc: {nodePort: 1}\n"
    assert git.with_tag(text, "abc") == text.replace("tag: none", "tag: abc")
    spread = "image: {registry: r.example.com, tag: 1, pullPolicy: Always}\n"
    assert git.with_tag(spread, "abc") == "image: {registry: r.example.com, tag: abc, pullPolicy: Always}\n"
    with pytest.raises(DeliveryError, match="image"):
        git.with_tag("deploy: {chart: sagas}\n", "abc")


def test_the_commit_that_deploys_has_the_files_of_the_environment_alone(repository):
    repository.write("services/orders/src/main.py", "half done\n")
    repository.git("add", "services/orders/src/main.py")
    repository.write("notes.txt")
    assert git.set_tags(repository.root, {"orders": "abc", "git-server": "xyz"}, "kind: deploy orders")
    assert repository.git("show", "--name-only", "--format=%s", "HEAD").split("\n") == [
        "kind: deploy orders",
        "",
        "argocd/envs/kind/orders.yaml",
    ]
    assert repository.git("diff", "--cached", "--name-only") == "services/orders/src/main.py"
    assert not git.set_tags(repository.root, {"orders": "abc"}, "kind: deploy orders")


def test_a_remote_is_made_once_and_follows_the_token(repository):
    git.set_remote(repository.root, "one")
    git.set_remote(repository.root, "two")
    assert repository.git("remote", "get-url", "kind") == "http://dev:two@127.0.0.1:7430/amends.git"


def test_what_the_cluster_has_and_this_clone_lacks_is_not_overwritten(repository, tmp_path):
    repository.git("clone", "--quiet", "--bare", str(repository.root), str(tmp_path / "kind.git"))
    repository.git("remote", "add", "kind", str(tmp_path / "kind.git"))
    assert git.push(repository.root) == repository.git("rev-parse", "HEAD")
    repository.write("a.txt")
    repository.commit()
    git.push(repository.root)
    repository.git("reset", "--quiet", "--hard", "HEAD~1")
    repository.write("b.txt")
    repository.commit()
    with pytest.raises(DeliveryError, match="refused") as failure:
        git.push(repository.root)
    assert "git pull --rebase kind main" in failure.value.hint


def test_a_shallow_clone_is_refused_with_the_way_to_make_it_whole(repository, tmp_path):
    repository.write("a.txt")
    repository.commit()
    repository.git("clone", "--quiet", "--depth", "1", f"file://{repository.root}", str(tmp_path / "shallow"))
    with pytest.raises(DeliveryError, match="shallow") as failure:
        git.push(tmp_path / "shallow")
    assert failure.value.hint == "git fetch --unshallow"


def test_shipping_what_is_not_deployed_is_refused_with_what_is(repository):
    with pytest.raises(DeliveryError, match=r"no ordres\.yaml") as failure:
        ship(repository.root, "ordres", Console())
    assert "orders, payments" in failure.value.hint


def test_argo_cds_manifest_is_a_file_or_a_failure_that_names_the_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("ARGOCD_MANIFEST", str(tmp_path / "absent.yaml"))
    with pytest.raises(DeliveryError, match="ARGOCD_MANIFEST"):
        argocd.manifest()
    (tmp_path / "given.yaml").write_text(
        "a:\n    image: quay.io/argoproj/argocd:v3\n    image: ghcr.io/dexidp/dex:v2\n"
    )
    monkeypatch.setenv("ARGOCD_MANIFEST", str(tmp_path / "given.yaml"))
    assert argocd.images(argocd.manifest()) == ["quay.io/argoproj/argocd:v3"]


def test_no_webhook_provider_is_left_without_a_secret():
    settings = secrets.webhook_settings("s")
    assert {name.split(".")[1] for name in settings} == {
        "github",
        "gitlab",
        "gogs",
        "bitbucketserver",
        "bitbucket",
        "azuredevops",
    }
    assert "" not in settings.values()


def test_the_namespaces_of_the_databases_are_those_of_the_environment():
    import yaml

    for service, namespace in secrets.DATABASES.items():
        values = yaml.safe_load((ROOT / argocd.ENVIRONMENT / f"{service}.yaml").read_text())
        assert values["deploy"]["namespace"] == namespace
        chart = yaml.safe_load((ROOT / "charts" / service / "values.yaml").read_text())
        assert chart["database"]["existingSecret"] == f"{service}-database"


@pytest.mark.parametrize("arguments", [["affected", "no-such-revision"], ["images", "no-such-service"]])
def test_the_command_says_what_is_wrong_and_how_to_mend_it(arguments, program):
    program("docker", "echo 24")
    done = subprocess.run(
        [sys.executable, "-m", "amends_delivery", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) >= 2
