"""The engine as machine code, as the orchestrator's image has it, passes the tests of its source.

What replaces parts of the engine from outside is left to the source: nobody can do that to machine code.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # the compiler takes minutes where the processor is busy

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "libs/saga/hatch_build.py"
OF_WHAT_IS_COMPILED = [
    str(ROOT / "libs/saga/tests" / name)
    for name in ("engine", "explore", "test_compiled.py", "test_copying.py", "test_example.py", "test_expressions.py")
]
REPLACES_PARTS = ("test_mutations", "test_the_first_path_to_a_violation_is_a_shortest_and_its_seed_replays_it")


def run(*arguments, **environment):
    """Run Python with `arguments`; return its exit code and everything that it printed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def compiled():
    """The folder of `make compiled`, which compiles only what has changed since."""
    done = subprocess.run(
        ["make", "compiled"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if "NOT COMPILED" in done.stdout:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout
    return str(ROOT / ".venv/compiled")


def test_every_module_of_the_engine_is_machine_code(compiled):
    modules = [path.stem for path in (ROOT / "libs/saga/src/amends_saga/engine").glob("[a-z]*.py")]
    names = ["amends_saga.journal", "amends_saga.cel.runtime", *(f"amends_saga.engine.{name}" for name in modules)]
    asked = "import importlib, sys; print(*(importlib.import_module(name).__file__ for name in sys.argv[1:]))"

    code, said = run("-c", asked, *names, PYTHONPATH=compiled)

    assert code == 0, said
    assert len(names) > 10
    assert all(file.startswith(compiled) and file.endswith(".so") for file in said.split()), said


@pytest.mark.timeout(300)
def test_it_passes_the_tests_of_the_source(compiled):
    left = " and ".join(f"not {name}" for name in REPLACES_PARTS)

    code, said = run(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", left),
        *OF_WHAT_IS_COMPILED,
        "services/orchestrator/tests/test_takeover.py",
        PYTHONPATH=compiled,
    )

    assert code == 0, said
    assert " passed" in said


@pytest.mark.timeout(300)
def test_it_lives_through_worlds_that_go_wrong(compiled):
    code, said = run("-m", "amends_simulation", "--seeds", "200", "--jobs", "1", PYTHONPATH=compiled)

    assert code == 0, said


def test_a_machine_that_cannot_compile_says_what_is_missing_and_how_to_get_it(tmp_path):
    code, said = run(str(BUILD), str(tmp_path), CC="no-such-compiler")

    assert code == 0
    assert "no-such-compiler" in said
    assert "apt-get install gcc" in said
    assert not list(tmp_path.iterdir())
