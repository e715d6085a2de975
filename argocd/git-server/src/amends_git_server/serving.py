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
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import parse_qs, unquote
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from dulwich.errors import NotGitRepository
from dulwich.objects import ObjectID
from dulwich.refs import Ref
from dulwich.repo import Repo
from dulwich.server import Backend
from dulwich.web import make_wsgi_chain

from amends_git_server.bounds import MOST_PUSHED, Server, Turns, limit_memory
from amends_git_server.receiving import MAIN, receiver
from amends_git_server.settings import Settings
from amends_git_server.telling import Hooks

_log = logging.getLogger(__name__)

WsgiApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
HEALTH = "/healthz"
PUSH, FETCH = "git-receive-pack", "git-upload-pack"
REMEMBERED = 256


class _Remembering(Repo):
    """The repository for a client that was told the branches a moment ago, and wants one that has moved since."""

    former: Iterable[bytes] = ()
    """Commits that branches have left lately."""

    def get_refs(self) -> dict[Ref, ObjectID]:
        """Return the branches, and those that they were."""
        return super().get_refs() | {Ref(b"refs/former/" + one): ObjectID(one) for one in tuple(self.former)}


class _OneRepository(Backend):
    """Opens the repository under its one name; closes what was opened."""

    def __init__(self, settings: Settings, opened: ExitStack, former: Iterable[bytes]) -> None:
        self._settings = settings
        self._opened = opened
        self._former = former

    def open_repository(self, path: str | bytes) -> Repo:
        """Return the repository. Raises NotGitRepository for any other path."""
        asked = path.decode(errors="replace") if isinstance(path, bytes) else path  # dulwich gives either
        if asked.strip("/") != self._settings.repository.name:
            raise NotGitRepository(asked)
        repository = self._opened.enter_context(_Remembering(str(self._settings.repository)))
        repository.former = self._former
        return repository


def application(settings: Settings) -> WsgiApplication:
    """Return the WSGI application."""
    turns = Turns()
    former: deque[bytes] = deque(maxlen=REMEMBERED)
    hooks = Hooks(settings.url, settings.hook_secret, settings.hooks)
    handlers: dict[bytes, Callable[..., Any]] = {PUSH.encode(): receiver(threading.Lock(), former, hooks.pushed)}

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
        if int(environ.get("CONTENT_LENGTH") or 0) > MOST_PUSHED:
            start_response("413 Content Too Large", [("Content-Type", "text/plain")])
            yield f"At most {MOST_PUSHED} bytes can be pushed at once.\n".encode()
            return
        with turns.turn() as mine, ExitStack() as opened:
            if not mine:
                start_response("503 Service Unavailable", [("Retry-After", "5")])
                yield b"Too many requests are under way.\n"
                return
            fetching = environ["PATH_INFO"].endswith(f"/{FETCH}")
            backend = _OneRepository(settings, opened, former if fetching else ())
            yield from make_wsgi_chain(backend, handlers=handlers)(environ, start_response)

    return serve


def _allowed(settings: Settings, environ: dict[str, Any]) -> bool:
    """Return whether the request's password is the token that it needs: pushing takes more than reading."""
    kind, _, coded = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    try:
        password = base64.b64decode(coded, validate=True).decode().partition(":")[2]
    except ValueError:
        return False
    asked = parse_qs(environ.get("QUERY_STRING", "")).get("service", [])  # decoded, as dulwich reads it
    pushing = PUSH in unquote(environ["PATH_INFO"]) or any(service != FETCH for service in asked)
    enough = (settings.push_token,) if pushing else (settings.push_token, settings.read_token)
    return kind.lower() == "basic" and any(hmac.compare_digest(password.encode(), one.encode()) for one in enough)


class _QuietGitHandler(WSGIRequestHandler):
    timeout = 30

    def parse_request(self) -> bool:
        """Note that the connection has said what it wants: all of its head, for half of one can be kept for long."""
        assert isinstance(self.server, Server)
        understood = super().parse_request()
        self.server.spoke(self.connection)
        return understood

    def log_message(self, format: str, *args: Any) -> None:
        if HEALTH not in self.path:
            _log.info("%s %s", self.address_string(), format % args)


def server(settings: Settings) -> WSGIServer:
    """Return a server that listens; make the repository if there is none."""
    if not settings.repository.exists():
        Repo.init_bare(str(settings.repository), mkdir=True).refs.set_symbolic_ref(b"HEAD", MAIN)  # type: ignore[arg-type]
        _log.info("made %s", settings.repository)
    return make_server(settings.host.strip("[]"), settings.port, application(settings), Server, _QuietGitHandler)


def main() -> None:
    """Serve until SIGTERM; a push under way is finished by the client's next try."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    logging.getLogger("dulwich").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings = Settings.read()
    limit_memory(settings.memory)
    listening = server(settings)
    _log.info("listening on %s:%d", *listening.server_address[:2])
    listening.serve_forever()
