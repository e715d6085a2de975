"""`escape`: nothing that a terminal obeys is left, and everything else is as it was."""

import unicodedata

import pytest
from amends_chassis.text import escape

HOSTILE = {
    "a line of its own": ("no\n7 ended COMPLETED", "no\\n7 ended COMPLETED"),
    "a carriage return": ("no\rOK", "no\\rOK"),
    "a colour": ("\x1b[32mok", "\\x1b[32mok"),
    "a window's title": ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
    "the clipboard": ("\x1b]52;c;cm0gLXJm\x1b\\", "\\x1b]52;c;cm0gLXJm\\x1b\\"),
    "an escape of eight bits": ("\x9b2J", "\\x9b2J"),
    "a direction": ("\u202eDETELPMOC", "\\u202eDETELPMOC"),
    "an isolate": ("\u2066x\u2069", "\\u2066x\\u2069"),
    "a separator of lines": ("a\u2028b\u2029c", "a\\u2028b\\u2029c"),
    "nothing": ("\x00", "\\x00"),
    "half a pair": ("\ud800", "\\ud800"),
    "a tag": ("\U000e0041", "\\U000e0041"),
}


@pytest.mark.parametrize(("text", "shown"), HOSTILE.values(), ids=HOSTILE)
def test_what_a_terminal_obeys_is_written_out(text: str, shown: str) -> None:
    assert escape(text) == shown


@pytest.mark.parametrize("text", ["", "Zürich", "東京", "👩\u200d💻", "C:\\new", "[bold]"])
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert escape(text) == text


def test_no_control_character_of_unicode_is_left() -> None:
    every = "".join(map(chr, range(0x11_0000)))
    left = {unicodedata.category(character) for character in escape(every)}
    assert not left & {"Cc", "Cs", "Zl", "Zp"}
    assert all(
        unicodedata.bidirectional(character)
        in ("", *["L", "R", "AL", "EN", "ES", "ET", "AN", "CS", "NSM", "BN", "WS", "ON"])
        for character in escape(every)
    )
