"""Requests of clients that have an answer already."""

import pytest
from shop_gateway.conditional import client_has, picture_response
from starlette.requests import Request


def asking(*headers: str) -> Request:
    return Request({"type": "http", "headers": [(b"if-none-match", one.encode()) for one in headers]})


@pytest.mark.parametrize("headers", [['"a"'], ['W/"a"'], ['"b", "a"'], ['"b"', 'W/"c", W/"a"'], ["*"]])
def test_a_client_has_what_it_names_in_any_form(headers: list[str]) -> None:
    assert client_has(asking(*headers), '"a"')


@pytest.mark.parametrize("headers", [[], [""], ["a"], ['"ab"'], ['"a'], ['"b", *']])
def test_a_client_has_nothing_else(headers: list[str]) -> None:
    assert not client_has(asking(*headers), '"a"')


def test_a_picture_is_not_sent_to_who_has_it() -> None:
    first = picture_response(asking(), "<svg/>")
    again = picture_response(asking(f"W/{first.headers['etag']}"), "<svg/>")
    assert (first.status_code, first.body) == (200, b"<svg/>")
    assert (again.status_code, again.body) == (304, b"")
    assert "sandbox" in first.headers["content-security-policy"]
