"""The Makefile documents itself, and the scripts behind it say what is wrong in words that help."""

import os
import re
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def makefile(root):
    return (root / "Makefile").read_text()


def benches(makefile):
    """The targets of the one pattern rule, bench-NAME."""
    listed = re.search(r"^BENCHES := ((?:.*\\\n)*.*)$", makefile, re.MULTILINE)
    assert listed is not None
    return {f"bench-{name}" for name in listed[1].replace("\\", " ").split()}


def run(*command, cwd, **environment):
    """Run a command with a terminal-less, English environment and return the finished process."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "GIT_"))}
    return subprocess.run(command, cwd=cwd, env=inherited | environment, capture_output=True, text=True)


def script(folder, name, text):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_every_target_is_phony_and_documented(makefile):
    phony = set(" ".join(re.findall(r"^\.PHONY: ([a-z].*)$", makefile, re.MULTILINE)).split())
    documented = set(re.findall(r"^([a-z0-9-]+):.*## \S", makefile, re.MULTILINE))
    defined = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    assert phony == documented == defined


def test_make_alone_prints_every_target(root, makefile):
    printed = run("make", "--no-print-directory", cwd=root).stdout
    for target in re.findall(r"^([a-z0-9-]+):.*## ", makefile, re.MULTILINE):
        assert re.search(rf"^  {target} +\S", printed, re.MULTILINE), target


def test_every_benchmark_has_a_target_of_its_name_and_is_listed(root, makefile):
    from amends_bench.table import BENCHMARKS, GROWTH, QUICK

    assert benches(makefile) == {f"bench-{name}" for name in (*BENCHMARKS, GROWTH)}
    assert set(QUICK) < set(BENCHMARKS)
    kept = {path.stem for path in (root / "bench" / "results").glob("*.json")}
    assert kept <= {*BENCHMARKS, GROWTH}
    listed = run(sys.executable, "-m", "amends_bench", "--list", cwd=root)
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [*BENCHMARKS, GROWTH], listed.stderr


def test_ci_and_the_readme_call_targets_that_exist(root, makefile):
    defined = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE)) | benches(makefile)
    ci = (root / ".ci/run").read_text()
    called = set(" ".join(re.findall(r"^make ((?:[a-z][a-z-]* ?)+)", ci, re.MULTILINE)).split())
    assert {"lint", "typecheck", "test"} <= called <= defined
    documents = [root / "README.md", root / "CONTRIBUTING.md", *root.glob("docs/**/*.md")]
    for document in documents:
        named = set(re.findall(r"(?:`|^ *\$? ?)make ([a-z][a-z0-9-]*)", document.read_text(), re.MULTILINE))
        assert named <= defined, document


def test_a_python_without_venv_is_answered_with_the_package_that_brings_it(root, tmp_path):
    script(tmp_path, "python3", 'case "$2" in *ensurepip*) exit 1;; *print*) echo 3.11;; esac')
    result = run(root / "tools/make-venv", "env", cwd=tmp_path, PATH=f"{tmp_path}:/usr/bin:/bin")
    assert result.returncode == 1
    assert "apt-get install python3-venv" in result.stderr
    assert not (tmp_path / "env").exists()


def test_an_old_python_is_refused_with_the_way_to_name_another(root, tmp_path):
    old = script(tmp_path, "python-old", "exit 1")
    result = run(root / "tools/make-venv", "env", cwd=tmp_path, PYTHON=str(old))
    assert result.returncode == 1
    assert "3.11 or newer" in result.stderr
    assert "PYTHON=" in result.stderr


def test_the_first_python_that_is_new_enough_is_taken(root, tmp_path):
    script(tmp_path, "python3", "exit 1")
    script(tmp_path, "python3.13", 'case "$1" in -m) mkdir "$3";; --version) echo Python 3.13.1;; esac')
    result = run(root / "tools/make-venv", "env", cwd=tmp_path, PATH=f"{tmp_path}:/usr/bin:/bin")
    assert result.returncode == 0, result.stderr
    assert "Python 3.13.1" in result.stdout
    assert (tmp_path / "env").is_dir()


@pytest.fixture
def contracts(root, tmp_path):
    """A git repository with one contract, and buf's settings of this one."""

    def git(*arguments):
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.com")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "buf.yaml").write_text((root / "buf.yaml").read_text())
    proto = tmp_path / "protos/acme/v1/acme.proto"
    proto.parent.mkdir(parents=True)
    proto.write_text('syntax = "proto3";\npackage acme.v1;\nmessage A {\n  string a = 1;\n  string b = 2;\n}\n')
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    return proto, git


def breaking(root, proto, *arguments):
    return run(root / "tools/buf-breaking", *arguments, cwd=proto.parents[3], BUF=str(root / ".venv/bin/buf"))


def test_without_a_release_the_comparison_is_skipped_and_says_so(root, contracts):
    proto, _git = contracts
    result = breaking(root, proto)
    assert result.returncode == 0
    assert "skipped" in result.stdout


def test_a_removed_field_breaks_a_released_peer(root, contracts):
    proto, git = contracts
    git("tag", "v0.1.0")
    proto.write_text(proto.read_text().replace("  string b = 2;\n", ""))
    result = breaking(root, proto)
    assert result.returncode != 0
    assert '"2"' in result.stdout
    assert '"b"' in result.stdout


def test_an_added_field_breaks_nobody(root, contracts):
    proto, git = contracts
    git("tag", "v0.1.0")
    proto.write_text(proto.read_text().replace("  string b = 2;\n", "  string b = 2;\n  string c = 3;\n"))
    assert breaking(root, proto).returncode == 0
    assert "v0.1.0" in breaking(root, proto).stdout
    assert breaking(root, proto, "HEAD").returncode == 0


@pytest.mark.parametrize(("made_at", "code"), [("/elsewhere/amends/.venv", 2), ("HERE/.venv", 0)])
def test_a_folder_that_was_copied_with_its_environment_is_told_to_make_a_new_one(tmp_path, makefile, made_at, code):
    (tmp_path / "Makefile").write_text(makefile)
    (tmp_path / "protos").mkdir()
    (tmp_path / ".venv").mkdir()
    home = made_at.replace("HERE", str(tmp_path))
    (tmp_path / ".venv" / "pyvenv.cfg").write_text(f"home = /usr/bin\ncommand = /usr/bin/python3 -m venv {home}\n")
    stamps = [".venv/.stamps/local", ".venv/.stamps/proto"]
    result = run("make", *(word for stamp in stamps for word in ("-o", stamp)), "setup", cwd=tmp_path)
    assert result.returncode == code, result.stderr
    assert ("make clean" in result.stderr) == (code != 0)


def test_packages_that_cannot_be_fetched_are_answered_with_where_they_come_from(tmp_path, makefile):
    (tmp_path / "Makefile").write_text(makefile)
    (tmp_path / "protos").mkdir()
    (tmp_path / "requirements.lock").write_text("aiohttp==1 --hash=sha256:0\n")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    script(tmp_path / ".venv" / "bin", "python", "echo 'No matching distribution found for aiohttp==1' >&2; exit 1")
    result = run("make", "-o", ".venv/.stamps/venv", ".venv/.stamps/locked", cwd=tmp_path)
    assert result.returncode == 2
    assert "Is the package index reachable?" in result.stderr
    assert "PIP_INDEX_URL" in result.stderr
