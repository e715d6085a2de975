"""What a destination is sent: a CloudEvent as JSON, signed as Standard Webhooks says.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
USER_AGENT = "amends-webhooks/1"


def signature(secrets: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """Return the signatures of a message, one for each secret; whoever knows one of the secrets accepts it."""
    signed = b".".join((message_id.encode(), str(timestamp).encode(), body))
    digests = (hmac.digest(secret, signed, hashlib.sha256) for secret in secrets)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def headers(event_id: UUID, body: bytes, secrets: Sequence[bytes], now: datetime) -> list[tuple[str, str]]:
    """Return the headers of an attempt. The id is the event's, so that a repetition can be told; the time is new."""
    message_id, timestamp = str(event_id), int(now.timestamp())
    return [
        ("Content-Type", CONTENT_TYPE),
        ("User-Agent", USER_AGENT),
        ("webhook-id", message_id),
        ("webhook-timestamp", str(timestamp)),
        ("webhook-signature", signature(secrets, message_id, timestamp, body)),
    ]
