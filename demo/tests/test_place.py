"""Whether a shop runs is known from a lock, never from a file that may be stale."""

import json
from pathlib import Path

import pytest
from amends_demo.commands import main
from amends_demo.place import Place, ShopRunsAlready


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / ".amends")


def processes() -> dict:
    return {
        "orders": {"pid": 1, "address": "127.0.0.1:4000", "metrics": "", "database": "postgresql://u:secret@h:5/orders"}
    }


def test_a_place_is_held_by_one_shop_at_a_time(place: Place) -> None:
    assert not place.running
    with place.held():
        assert place.running
        with pytest.raises(ShopRunsAlready), place.held():
            pytest.fail("held twice")
        assert place.running
    assert not place.running


def test_what_runs_is_forgotten_at_the_end_even_of_a_failure(place: Place) -> None:
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


def test_clearing_removes_what_a_former_shop_left_but_not_the_lock(place: Place) -> None:
    with place.held():
        (place.root / "postgres").mkdir()
        (place.root / "postgres" / "data").write_text("old")
        (place.root / "file").write_text("old")
        place.clear()
        assert [path.name for path in place.root.iterdir()] == ["lock"]
        assert place.running


def test_without_a_shop_every_command_says_so(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    root = ("--place", str(place.root))
    assert main(["status", *root]) == 0
    assert main(["down", *root]) == 0
    assert main(["logs", *root]) == 1
    said = capsys.readouterr().out
    assert "make up" in said
    assert "Nothing runs here" in said


@pytest.mark.parametrize("command", ["demo", "up"])
def test_a_second_start_says_what_runs_and_leaves_it_alone(
    place: Place, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    with place.held():
        place.write_state("up", "127.0.0.1:5000", processes())
        assert main([command, "--place", str(place.root)]) == 1
        assert json.loads(place.state.read_text())["mode"] == "up"
    said = " ".join(capsys.readouterr().out.split())
    assert "runs already" in said
    assert "make down" in said


def test_status_shows_addresses_and_no_password(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    with place.held():
        place.write_state("up", "127.0.0.1:5000", processes())
        assert main(["status", "--place", str(place.root)]) == 0
    said = capsys.readouterr().out
    assert "127.0.0.1:4000" in said
    assert "secret" not in said


def test_logs_are_followed_with_the_name_of_their_process(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    from amends_demo import logs
    from rich.console import Console

    place.logs.mkdir(parents=True)
    (place.logs / "orders.log").write_text("started [x]\n")
    (place.logs / "payments.log").write_text("charged\n")
    assert logs.follow(place, ["orders"], Console(), forever=False) == 0
    assert capsys.readouterr().out.split() == ["orders", "started", "[x]"]
