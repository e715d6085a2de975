"""Whether a shop runs is known from a lock, never from a file that may be stale."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from amends_demo import guide, logs
from amends_demo.commands import main
from amends_demo.place import CHECKOUT, ShopFolder, ShopRunsAlreadyError
from rich.console import Console


@pytest.fixture
def place(tmp_path: Path) -> ShopFolder:
    return ShopFolder(tmp_path / ".amends")


def processes() -> dict:
    return {
        "orders": {"pid": 1, "address": "127.0.0.1:4000", "metrics": "", "database": "postgresql://u:secret@h:5/orders"}
    }


def test_a_place_is_held_by_one_shop_at_a_time(place: ShopFolder) -> None:
    assert not place.running
    with place.held():
        assert place.running
        with pytest.raises(ShopRunsAlreadyError), place.held():
            pytest.fail("held twice")
        assert place.running
    assert not place.running


def test_what_runs_is_forgotten_at_the_end_even_of_a_failure(place: ShopFolder) -> None:
    def fail() -> None:
        with place.held():
            place.write_state("up", "127.0.0.1:5000", processes())
            assert place.address.read_text() == "127.0.0.1:5000\n"
            assert place.state.stat().st_mode & 0o077 == 0
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert not place.state.exists()
    assert not place.address.exists()
    assert place.read_state() == {}


def test_clearing_removes_what_a_former_shop_left_but_not_the_lock(place: ShopFolder) -> None:
    with place.held():
        (place.root / "postgres").mkdir()
        (place.root / "postgres" / "data").write_text("old")
        (place.root / "file").write_text("old")
        place.clear()
        assert [path.name for path in place.root.iterdir()] == ["lock"]
        assert place.running


def test_without_a_shop_every_command_says_so(place: ShopFolder, capsys: pytest.CaptureFixture[str]) -> None:
    root = ("--place", str(place.root))
    assert main(["status", *root]) == 0
    assert main(["down", *root]) == 0
    assert main(["logs", *root]) == 1
    said = capsys.readouterr().out
    assert "make up" in said
    assert "Nothing runs here" in said


@pytest.mark.parametrize("command", ["demo", "up"])
def test_a_second_start_says_what_runs_and_leaves_it_alone(
    place: ShopFolder, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    with place.held():
        place.write_state("up", "127.0.0.1:5000", processes())
        assert main([command, "--place", str(place.root)]) == 1
        assert json.loads(place.state.read_text())["mode"] == "up"
    said = " ".join(capsys.readouterr().out.split())
    assert "runs already" in said
    assert "make down" in said


def test_status_shows_addresses_and_no_password(place: ShopFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with place.held():
        place.write_state("up", "127.0.0.1:5000", processes())
        assert main(["status", "--place", str(place.root)]) == 0
    said = capsys.readouterr().out
    assert "127.0.0.1:4000" in said
    assert "secret" not in said


def show_logs(place: ShopFolder, names: list[str]) -> int:
    return logs.follow(place, names, Console(), forever=False)


def test_logs_are_shown_by_their_time_with_the_name_of_their_process(
    place: ShopFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    place.logs.mkdir(parents=True)
    (place.logs / "orders.log").write_text(
        "2026-11-30 12:00:01 [info] placed [x]\n2026-11-30 12:00:03 [error] failed\n  Traceback\n"
    )
    (place.logs / "payments.log").write_text('{"timestamp": "2026-11-30T12:00:02.5Z", "event": "charged"}\n')
    with place.held():
        assert show_logs(place, []) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == ["orders", "payments", "orders", "orders"]
        assert lines[0].endswith("placed [x]")
        assert lines[-1].split() == ["orders", "Traceback"]
        assert show_logs(place, ["payments"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 1


def test_only_the_last_lines_of_all_logs_are_shown_first(place: ShopFolder, capsys: pytest.CaptureFixture[str]) -> None:
    place.logs.mkdir(parents=True)
    for name in ("orders", "payments"):
        lines = [f"2026-11-30 12:{number // 60:02}:{number % 60:02} {number}" for number in range(90)]
        (place.logs / f"{name}.log").write_text("\n".join(lines) + "\n")
    with place.held():
        assert show_logs(place, []) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == logs.LINES
    assert {line.split()[-1] for line in shown} == {str(number) for number in range(65, 90)}


def test_logs_of_nothing_that_runs_are_not_followed(place: ShopFolder, capsys: pytest.CaptureFixture[str]) -> None:
    place.logs.mkdir(parents=True)
    (place.logs / "orders.log").write_text("old\n")
    assert show_logs(place, []) == 1
    assert "Nothing runs here" in capsys.readouterr().out
    with place.held():
        assert main(["logs", "--place", str(place.root), "paiments"]) == 1
    assert "no log of paiments. There are: orders" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_status_shows_whole_addresses_however_narrow_the_terminal_is(
    place: ShopFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    running = processes() | {
        "orchestrator-1": {
            "pid": os.getpid(),
            "address": "127.0.0.1:40001",
            "metrics": "127.0.0.1:40002",
            "database": "postgresql://u:secret@h:5/orchestrator",
        }
    }
    with place.held():
        place.write_state("up", "127.0.0.1:5000", running)
        main(["status", "--place", str(place.root)])
    said = capsys.readouterr().out
    assert "127.0.0.1:40001" in said
    assert ("127.0.0.1:40002" in said) == ("METRICS" in said) == (columns >= 80)


def test_status_tells_who_is_dead_also_when_nobody_has_waited_for_it(
    place: ShopFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    zombie = subprocess.Popen(["true"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    running = processes()
    running["orders"]["pid"] = zombie.pid
    with place.held():
        place.write_state("up", "127.0.0.1:5000", running)
        assert main(["status", "--place", str(place.root)]) == 1
    zombie.wait()
    assert "dead" in capsys.readouterr().out


def test_a_demo_has_a_place_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[Path] = []

    async def demo(place: ShopFolder, console: Console, tls: bool) -> int:
        told.append(place.root)
        return 0

    monkeypatch.setattr("amends_demo.commands.demo", demo)
    assert main(["demo"]) == 0
    assert main(["demo", "--place", str(tmp_path)]) == 0
    assert told == [CHECKOUT / ".amends" / "demo", tmp_path]


def test_no_line_to_copy_is_longer_than_an_address_makes_it(place: ShopFolder) -> None:
    with place.held():
        place.write_state(
            "up",
            "x",
            processes()
            | {
                "orchestrator-1": processes()["orders"],
                "identity": processes()["orders"] | {"keys": "127.0.0.1:54321"},
                "gateway": processes()["orders"] | {"shop": "127.0.0.1:54323"},
                "mail-catcher": processes()["orders"] | {"page": "http://127.0.0.1:54322"},
            },
        )
        assert max(len(line) for line in guide.lines(place)) <= 130
