"""Tells Argo CD of a push, as GitHub would: the two receivers of Argo CD take that form, signed.

A webhook that is lost costs one poll. Called by `serving`.
"""

import hashlib
import hmac
import json
import logging
import threading
import time
import urllib.error
import urllib.request
from datetime import timedelta

_log = logging.getLogger(__name__)
PAUSES = tuple(timedelta(seconds=seconds) for seconds in (0, 1, 3, 10))
PATIENCE = timedelta(seconds=10)
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Goes past the proxy of the environment: receivers are in the cluster, and a webhook is signed for them alone."""


def signature(secret: str, body: bytes) -> str:
    """Return the value of X-Hub-Signature-256."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def payload(url: str, ref: str, before: str, after: str, files: list[str]) -> bytes:
    """Return GitHub's push event, as far as Argo CD reads it."""
    commit = {"id": after, "added": [], "modified": files, "removed": []}
    repository = {"html_url": url, "default_branch": "main"}
    event = {"ref": ref, "before": before, "after": after, "repository": repository, "commits": [commit]}
    return json.dumps(event).encode()


class Hooks:
    """The addresses that are called after each push."""

    def __init__(self, url: str, secret: str, targets: tuple[str, ...]) -> None:
        """`url` is the repository's, `targets` are the receivers'."""
        self._url = url
        self._secret = secret
        self._targets = targets

    def pushed(self, ref: str, before: str, after: str, files: list[str]) -> None:
        """Tell all of them, each from a thread of its own: a push does not wait for who listens."""
        body = payload(self._url, ref, before, after, files)
        _log.info("pushed %s %s..%s, %d files", ref, before[:8], after[:8], len(files))
        for target in self._targets:
            threading.Thread(target=self._tell, args=(target, body), daemon=True).start()

    def _tell(self, target: str, body: bytes) -> None:
        said = {
            "Content-Type": "application/json",
            "X-GitHub-Event": "push",
            "X-Hub-Signature-256": signature(self._secret, body),
        }
        for pause in PAUSES:
            time.sleep(pause.total_seconds())
            request = urllib.request.Request(target, body, said)  # noqa: S310 - from our own settings
            try:
                with _DIRECT.open(request, timeout=PATIENCE.total_seconds()) as answer:
                    _log.info("told %s: %d", target, answer.status)
                    return
            except urllib.error.HTTPError as refused:
                with refused:
                    _log.warning("could not tell %s: %s", target, refused)
            except OSError as error:
                _log.warning("could not tell %s: %s", target, error)
        _log.error("gave up telling %s; it will find out by its next poll", target)
