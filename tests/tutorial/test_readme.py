"""The first block of the README works when it is pasted: nothing in it is faster than what it needs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .pages import ROOT, free_port

BLOCK = re.compile(r"```\n(make setup && export PATH.*?)```.*?```\n(amends dev --stop.*?)```", re.DOTALL)


def pasted(folder: Path) -> str:
    """What a reader pastes, with ports and folders of the test's own."""
    found = BLOCK.search((ROOT / "README.md").read_text())
    assert found is not None
    text, port = found[1] + found[2], str(free_port())
    participants = folder / "examples/own-services/participants.yaml"
    participants.write_text(participants.read_text().replace("50051", port))
    for written, meant in {
        "make setup": "true",
        "python server.py": f"python server.py {port}",
        "amends dev --data /tmp/amends": f"amends dev --port {free_port()} --data {folder}/data",
    }.items():
        assert written in text
        text = text.replace(written, meant)
    return text


@pytest.mark.timeout(240)
def test_the_first_block_works_when_it_is_pasted(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples/own-services", tmp_path / "examples/own-services")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    told = {name: value for name, value in os.environ.items() if not name.startswith("AMENDS_")}
    (tmp_path / ".amends").mkdir()
    (tmp_path / ".amends/address").write_text("127.0.0.1:1\n")  # what a shop that runs leaves
    done = subprocess.run(
        ["bash"],
        input=pasted(tmp_path),
        cwd=tmp_path,
        env=told | {"XDG_RUNTIME_DIR": str(tmp_path), "COLUMNS": "300"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
    )
    printed = done.stdout
    assert "saga default/book-trip" in printed
    assert re.search(r"^COMPLETED$", printed, re.MULTILINE), printed
    assert "from `amends dev`" in printed
    assert "stopped the orchestrator at" in printed
    for wrong in ("error", "Traceback", "not ready"):
        assert wrong not in printed, printed
