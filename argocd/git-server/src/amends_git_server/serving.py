"""The server: smart HTTP over one bare repository, with one token to push and one to read. Called by `__main__`.

Every request opens the repository anew: threads that share one share the position in its pack files, and a reader
then gets garbage.
"""

import base64
import hmac
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from dulwich.errors import NotGitRepository
from dulwich.repo import Repo
from dulwich.server import Backend
from dulwich.web import make_wsgi_chain

from amends_git_server.receiving import MAIN, receiver
from amends_git_server.settings import Settings
from amends_git_server.telling import Hooks

_log = logging.getLogger(__name__)

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
HEALTH = "/healthz"
PUSH = "git-receive-pack"


class _OneRepository(Backend):
    """Opens the repository under its one name; closes what was opened."""

    def __init__(self, settings: Settings, opened: ExitStack) -> None:
        self._settings = settings
        self._opened = opened

    def open_repository(self, path: str | bytes) -> Repo:
        """Return the repository. Raises NotGitRepository for any other path."""
        asked = path.decode(errors="replace") if isinstance(path, bytes) else path  # dulwich gives either
        if asked.strip("/") != self._settings.repository.name:
            raise NotGitRepository(asked)
        return self._opened.enter_context(Repo(str(self._settings.repository)))


def application(settings: Settings) -> Application:
    """Return the WSGI application."""
    handlers: dict[bytes, Callable[..., Any]] = {PUSH.encode(): receiver(threading.Lock(), _teller(settings))}

    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        if environ["PATH_INFO"] == HEALTH:
            start_response("200 OK", [("Content-Type", "text/plain")])
            yield b"ok\n"
            return
        allowed = _allowed(settings, environ)
        if not allowed:
            start_response("401 Unauthorized", [("WWW-Authenticate", 'Basic realm="git"')])
            yield b"Give the token as the password.\n"
            return
        with ExitStack() as opened:
            yield from make_wsgi_chain(_OneRepository(settings, opened), handlers=handlers)(environ, start_response)

    return serve


def _teller(settings: Settings) -> Callable[[str, str, str, list[str]], None]:
    return Hooks(settings.url, settings.hook_secret, settings.hooks).pushed


def _allowed(settings: Settings, environ: dict[str, Any]) -> bool:
    """Whether the request's password is the token that it needs: pushing takes more than reading."""
    kind, _, coded = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    try:
        password = base64.b64decode(coded, validate=True).decode().partition(":")[2]
    except ValueError:
        return False
    pushing = PUSH in environ["PATH_INFO"] or PUSH in environ.get("QUERY_STRING", "")
    enough = (settings.push_token,) if pushing else (settings.push_token, settings.read_token)
    return kind.lower() == "basic" and any(hmac.compare_digest(password.encode(), one.encode()) for one in enough)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    timeout = 120

    def log_message(self, format: str, *args: Any) -> None:
        if HEALTH not in self.path:
            _log.info("%s %s", self.address_string(), format % args)


def server(settings: Settings) -> WSGIServer:
    """Return a server that listens; make the repository if there is none."""
    if not settings.repository.exists():
        Repo.init_bare(str(settings.repository), mkdir=True).refs.set_symbolic_ref(b"HEAD", MAIN)  # type: ignore[arg-type]
        _log.info("made %s", settings.repository)
    return make_server(settings.host, settings.port, application(settings), _Server, _Quiet)


def main() -> None:
    """Serve until SIGTERM; a push under way is finished by the client's next try."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    logging.getLogger("dulwich").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    listening = server(Settings.read())
    _log.info("listening on %s:%d", *listening.server_address[:2])
    listening.serve_forever()
