"""The supervisor: what a child is told, when it is ready, and that none is left."""

import json
import os
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from amends_embedded import Child, ChildDiedError, Children, ReportTimeoutError
from amends_embedded.process import until

SERVE = """
import json, os, signal, sys, time
report = os.environ["AMENDS_REPORT_FILE"]
said = {"pid": os.getpid(), "told": {k: v for k, v in os.environ.items() if k.startswith("AMENDS_")}}
open(report + ".new", "w").write(json.dumps(said))
os.replace(report + ".new", report)
print("listening", flush=True)
signal.pause()
"""


def serve(tmp_path: Path, name: str = "server", code: str = SERVE, **environment: str) -> Child:
    return Child.start(
        name,
        [sys.executable, "-c", code],
        log=tmp_path / "logs" / f"{name}.log",
        report=tmp_path / "reports" / f"{name}.json",
        environment=environment,
    )


async def test_a_child_is_ready_when_it_has_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMENDS_DATABASE_URL", "of the parent")
    child = serve(tmp_path, AMENDS_PORT="0")
    report = await child.ready()
    assert report["pid"] == child.pid
    assert set(report["told"]) == {"AMENDS_REPORT_FILE", "AMENDS_PORT"}
    assert await child.terminate() == -15
    assert "listening" in child.tail()


async def test_a_report_of_a_former_start_is_not_taken_for_this_one(tmp_path: Path) -> None:
    report = tmp_path / "reports" / "server.json"
    report.parent.mkdir()
    report.write_text(json.dumps({"pid": 1}))
    child = serve(tmp_path)
    assert (await child.ready())["pid"] == child.pid
    await child.terminate()


async def test_a_child_that_dies_early_is_told_with_its_last_words(tmp_path: Path) -> None:
    child = serve(tmp_path, code="import sys; sys.exit('the database is missing')")
    with pytest.raises(ChildDiedError, match=r"(?s)server ended with 1.*the database is missing"):
        await child.ready()
    assert not child.alive
    assert child.exit_code == 1


async def test_a_child_that_never_reports_is_told_after_the_timeout(tmp_path: Path) -> None:
    child = serve(tmp_path, code="import signal; signal.pause()")
    with pytest.raises(ReportTimeoutError, match="did not report"):
        await child.ready(timedelta(milliseconds=50))
    assert await child.wait(timedelta(milliseconds=20)) is None
    child.kill()
    assert child.exit_code == -9
    child.kill()


async def test_a_child_that_ignores_the_request_to_end_is_killed_after_the_grace(tmp_path: Path) -> None:
    child = serve(tmp_path, code="import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVE)
    await child.ready()
    assert await child.terminate(timedelta(milliseconds=50)) == -9


async def test_children_are_stopped_in_the_reverse_of_their_start(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    code = (
        "import signal, sys\n"
        "def bye(*_):\n"
        f"    open({str(ended)!r}, 'a').write(sys.argv[1] + ' ')\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, bye)\n" + SERVE
    )
    async with Children() as children:
        for name in ("first", "second"):
            child = children.add(
                Child.start(
                    name,
                    [sys.executable, "-c", code, name],
                    log=tmp_path / f"{name}.log",
                    report=tmp_path / f"{name}.json",
                )
            )
            await child.ready()
        with pytest.raises(ValueError, match="first runs already"):
            children.add(children.running["first"])
    assert ended.read_text() == "second first "


async def test_an_error_in_the_block_leaves_no_child(tmp_path: Path) -> None:
    async def use() -> None:
        async with Children() as children:
            started.append(children.add(serve(tmp_path)))
            raise LookupError

    started: list[Child] = []
    with pytest.raises(LookupError):
        await use()
    assert not started[0].alive


async def test_a_killed_parent_takes_its_children_with_it(tmp_path: Path) -> None:
    code = (
        "import pathlib, signal, sys; from amends_embedded import Child\n"
        "here = pathlib.Path(sys.argv[1])\n"
        "child = Child.start('grandchild', ['sleep', '1000'], log=here / 'log')\n"
        "(here / 'pid.new').write_text(str(child.pid)); (here / 'pid.new').rename(here / 'pid')\n"
        "signal.pause()\n"
    )
    parent = Child.start("parent", [sys.executable, "-c", code, str(tmp_path)], log=tmp_path / "parent.log")
    assert await until((tmp_path / "pid").exists, timedelta(seconds=20))
    grandchild = int((tmp_path / "pid").read_text())
    parent.kill()
    assert await until(lambda: not _runs(grandchild), timedelta(seconds=10))


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] and os.getpgid(pid) >= 0
    except (OSError, IndexError):
        return False
