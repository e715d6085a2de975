"""A small repository of two services, and programs that stand where docker and kind would."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

DOCKERFILE = """ARG BASE_IMAGE=python:3.13-slim
FROM ${{BASE_IMAGE}} AS build
COPY tools/image-install tools/image-install
{protos}COPY libs/common libs/common
COPY services/{name} services/{name}

FROM ${{BASE_IMAGE}}
COPY --from=build /app /app
"""


@dataclass
class Repository:
    root: Path

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=self.root, env=inherited, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def write(self, name: str, text: str = "x\n") -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def commit(self, message: str = "change") -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "repository")
    made.root.mkdir()
    made.git("init", "--quiet")
    made.write("services/orders/Dockerfile", DOCKERFILE.format(name="orders", protos="COPY protos/a protos/a\n"))
    made.write("services/payments/Dockerfile", DOCKERFILE.format(name="payments", protos="COPY protos/b protos/b\n"))
    for name in ("orders", "payments"):
        made.write(f"services/{name}/src/main.py")
        made.write(f"services/{name}/tests/test_main.py")
        made.write(f"services/{name}/README.md")
        made.write(f"charts/{name}/values.yaml")
        made.write(f"charts/{name}/Chart.yaml", f"name: {name}\ndependencies: [{{name: microservice}}]\n")
        made.write(
            f"argocd/envs/kind/{name}.yaml", f"deploy: {{chart: {name}, namespace: shop}}\nimage: {{tag: none}}\n"
        )
    made.write("charts/microservice/values.yaml")
    made.write("libs/common/common.py")
    made.write("libs/unused/unused.py")
    made.write("protos/a/a.proto")
    made.write("protos/b/b.proto")
    made.write("tools/image-install")
    made.write(".gitignore", "__pycache__/\n")
    made.write(".dockerignore", "# what no image is made of\n**/*.md\n**/tests\nlibs/common/gen\n")
    made.commit("first")
    return made


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a program of a few lines of shell before all others."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def install(name: str, text: str) -> None:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    return install
