"""Tokens of pages: what was given out comes back, and nothing else is taken."""

import base64
import contextlib
import json

import pytest
from amends_chassis.pages import PageInvalidError, page_size, page_token, parts_of
from hypothesis import given
from hypothesis import strategies as st

PRINTABLE = st.text().filter(str.isprintable)


@given(st.lists(PRINTABLE, min_size=1, max_size=3))
def test_what_was_given_out_comes_back(key):
    assert parts_of(page_token(*key), len(key)) == tuple(key)


def test_the_first_page_has_no_token():
    assert parts_of("", 2) is None


def made(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    "token",
    [
        "?",
        "=",
        "é",
        made(["one"]),
        made({}),
        made([1, 2]),
        made(["a", "\0"]),
        made(["a", "\ud800"]),
        "AAAA",
        made("ab"),
    ],
)
def test_what_was_never_given_out_is_refused(token):
    with pytest.raises(PageInvalidError, match="page_token must come from the answer before"):
        parts_of(token, 2)


@given(st.text(max_size=60))
def test_no_text_makes_it_fail_otherwise(token):
    with contextlib.suppress(PageInvalidError):
        parts_of(token, 2)


@pytest.mark.parametrize("asked", [-1, 101])
def test_a_size_that_no_page_has_is_refused(asked):
    with pytest.raises(PageInvalidError):
        page_size(asked)


def test_nothing_asked_is_a_page_of_usual_size():
    assert (page_size(0), page_size(1), page_size(100)) == (50, 1, 100)
