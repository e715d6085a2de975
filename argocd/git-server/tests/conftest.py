"""A git server on loopback, a clone that pushes to it, and a receiver of its webhooks."""

import os
import subprocess
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import Queue

import pytest
from amends_git_server.serving import server
from amends_git_server.settings import Settings

PUSH, READ, HOOK = "push-token-0123456789", "read-token-0123456789", "hook-secret-0123456789"


@dataclass
class Receiver:
    """Stands where Argo CD stands, and keeps what it is told."""

    told: Queue = field(default_factory=Queue)
    refuse: int = 0
    """How many webhooks to refuse first."""
    url: str = ""


@pytest.fixture
def receiver():
    kept = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if kept.refuse:
                kept.refuse -= 1
                self.send_error(503)
                return
            self.send_response(200)
            self.end_headers()
            kept.told.put((self.headers, body))

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        kept.url = f"http://127.0.0.1:{listening.server_address[1]}/api/webhook"
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield kept
        listening.shutdown()


@pytest.fixture
def served(tmp_path, receiver):
    """Return the server's address, as host:port."""
    settings = Settings(
        tmp_path / "srv" / "amends.git", "http://git.example/amends", PUSH, READ, HOOK, (receiver.url,), port=0
    )
    settings.repository.parent.mkdir()
    with server(settings) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()


@dataclass(frozen=True)
class Clone:
    folder: Path

    def git(self, *arguments, check=True):
        quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main")
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=self.folder, env=inherited | quiet, capture_output=True, text=True
        )
        assert done.returncode == 0 or not check, done.stderr
        return done

    def commit(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.git("add", ".")
        self.git("commit", "--quiet", "-m", f"change {name}")
        return self.git("rev-parse", "HEAD").stdout.strip()

    def push(self, *arguments, to="kind"):
        return self.git("push", to, *(arguments or ("main",)), check=False)


@pytest.fixture
def clone(tmp_path, served):
    made = Clone(tmp_path / "clone")
    made.folder.mkdir()
    made.git("init", "--quiet")
    made.git("remote", "add", "kind", f"http://dev:{PUSH}@{served}/amends.git")
    return made
