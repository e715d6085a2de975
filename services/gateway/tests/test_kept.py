"""A shared cache of answers, by a clock of the test's own."""

import pytest
from shop_gateway import kept
from shop_gateway.kept import KeptAnswers

PUBLIC = "public, max-age=5"


def test_an_answer_is_found_until_it_is_too_old() -> None:
    now = 0.0
    answers = KeptAnswers(lambda: now)
    answers.keep("/a", b"body", "tag", PUBLIC)
    now = 4.9
    found = answers.find("/a")
    assert found is not None
    assert (found[0].body, found[1]) == (b"body", 4)
    now = 5.0
    assert answers.find("/a") is None


@pytest.mark.parametrize(("keep", "size"), [("no-store", 1), ("private, max-age=5", 1), (PUBLIC, kept.LARGEST + 1)])
def test_what_is_not_for_everybody_or_too_large_is_not_kept(keep: str, size: int) -> None:
    answers = KeptAnswers()
    answers.keep("/a", b"x" * size, "tag", keep)
    assert answers.find("/a") is None


def test_there_is_room_for_so_many_and_the_one_that_was_used_longest_ago_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST", 2)
    answers = KeptAnswers()
    for address in ("/a", "/b"):
        answers.keep(address, b"", "tag", PUBLIC)
    answers.find("/a")
    answers.keep("/c", b"", "tag", PUBLIC)
    assert [answers.find(address) is not None for address in ("/a", "/b", "/c")] == [True, False, True]
