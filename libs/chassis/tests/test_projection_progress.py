"""What a rebuild shows: a bar that moves on a terminal, whole lines anywhere else."""

import io

from amends_chassis.projections.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        self.now += 0.05
        return self.now


def shown(stream: io.StringIO) -> ProgressBar:
    bar = ProgressBar(stream, Clock())
    for done in range(0, 2_001, 10):
        bar("events", done, 2_000)
    bar.end()
    return bar


def test_a_terminal_has_one_line_that_changes_and_is_full_at_the_end():
    stream = Terminal()
    shown(stream)
    looks = stream.getvalue().split("\r")[1:]
    assert len(looks) > 50
    assert all("\n" not in look for look in looks[:-1])
    assert looks[-1].endswith("\n")
    assert looks[-1].startswith("events: [##############################] 100 %  2,000 of 2,000  200/s")
    assert "[###############...............]  50 %" in stream.getvalue()


def test_anything_else_has_whole_lines_now_and_then_without_a_code_of_terminals():
    stream = io.StringIO()
    shown(stream)
    lines = stream.getvalue().splitlines()
    assert 2 < len(lines) < 6
    assert lines[0] == "events:   0 %  0 of 2,000"
    assert lines[-1] == "events: 100 %  2,000 of 2,000  200/s"
    assert all(line.isprintable() and "[" not in line for line in lines)


def test_a_stage_of_which_nobody_knows_the_end_is_counted_and_ends_with_what_came_last():
    stream = io.StringIO()
    bar = ProgressBar(stream, Clock())
    for done in (500, 1_000, 1_234):
        bar("export of orders", done, None)
    bar("events", 0, 0)
    bar.end()
    assert stream.getvalue().splitlines() == [
        "export of orders: 500",
        "export of orders: 1,234",
        "events: 100 %  0 of 0",
    ]


def test_nothing_is_shown_of_a_rebuild_that_did_not_begin():
    stream = io.StringIO()
    ProgressBar(stream).end()
    assert stream.getvalue() == ""


def test_what_is_told_again_is_shown_once():
    stream = io.StringIO()
    bar = ProgressBar(stream, Clock())
    for _ in range(200):
        bar("events", 7, 7)
    bar.end()
    assert stream.getvalue() == "events: 100 %  7 of 7\n"
