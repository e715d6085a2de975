"""Templates, and what every page has: the headers that a browser enforces, and how values are written for people."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from google.protobuf.timestamp_pb2 import Timestamp
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from shop.orders.v1 import orders_pb2
from shop.types.v1.types_pb2 import Money

HERE = Path(__file__).parent
STATIC = HERE / "static"
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "referrer-policy": "same-origin",  # with `no-referrer` browsers would hide the origin of forms
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "cache-control": "no-store",  # every page shows the visitor's basket
}
_WITHOUT_MINOR = {"JPY", "KRW", "ISK", "CLP", "VND"}
"""Currencies whose minor unit is the unit itself (ISO 4217)."""
ORDER_STATES = {
    orders_pb2.ORDER_STATE_PENDING: "In progress",
    orders_pb2.ORDER_STATE_CONFIRMED: "Confirmed",
    orders_pb2.ORDER_STATE_REJECTED: "Could not be fulfilled",
    orders_pb2.ORDER_STATE_REFUNDED: "Refunded",
}


def money(value: Money) -> str:
    """Return an amount as people write it."""
    if value.currency in _WITHOUT_MINOR:
        return f"{value.currency} {value.minor:,}"
    return f"{value.currency} {value.minor // 100:,}.{value.minor % 100:02d}"


def moment(value: Timestamp) -> str:
    """Return a moment to the minute."""
    shown: datetime = value.ToDatetime()
    return f"{shown:%d %B %Y, %H:%M} UTC".lstrip("0")


def segment(value: str) -> str:
    """Return a text as one segment of a path."""
    return quote(value, safe="")


def versioned(name: str) -> str:
    """Return the path of a file of `static`, which changes with the file: browsers keep it for good."""
    return f"/static/{VERSIONS[name]}/{name}"


VERSIONS = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:12] for path in STATIC.iterdir()}
"""The version of each file of `static`, by its name."""
_templates = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_templates.filters |= {"money": money, "moment": moment, "segment": segment}
_templates.globals |= {"versioned": versioned, "order_states": ORDER_STATES}


def page(template: str, values: Mapping[str, Any], status: int = 200) -> HTMLResponse:
    """Return a page with the headers of all pages."""
    return HTMLResponse(_templates.get_template(template).render(values), status, HEADERS)
