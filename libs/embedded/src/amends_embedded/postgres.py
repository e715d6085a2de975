"""One Postgres server over one data directory, for as long as somebody needs it.

Called by `amends dev`, the demo, the benchmarks and the test fixtures. It is the same server as in production with
the same guarantees (fsync on, passwords checked), only smaller.
"""

import asyncio
import fcntl
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

import asyncpg

from amends_embedded.account import SystemAccount, choose
from amends_embedded.process import clean_environment, until

NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
READY_LINE = 7  # of postmaster.pid, from 0
STARTS = 10  # attempts: a port can be taken between choosing and binding it, a killed server's children linger
START_TIMEOUT = timedelta(seconds=30)
STOP_TIMEOUT = timedelta(seconds=20)
LINGER = timedelta(seconds=10)  # how long the children of a killed server may take to notice
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a path over about 100 characters would fail, and nobody needs the socket
    "max_connections": "280",
    "shared_buffers": "64MB",
    "max_wal_size": "512MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class PostgresError(RuntimeError):
    """The server could not be made or started. The text has the last lines of its log."""


class PostgresAlreadyRunningError(PostgresError):
    """Another process serves this data directory."""


class Postgres:
    """A running server. Make it with `await Postgres.start(directory)`, end it with `await stop()`."""

    def __init__(self, home: Path, account: SystemAccount, settings: Mapping[str, str]) -> None:
        self.home = home.absolute()
        self.log = self.home / "postgres.log"
        self.port = 0
        self._account = account
        self._cluster = account.data.resolve() / "cluster"
        self._settings = {**SETTINGS, **settings}
        self._process: subprocess.Popen[bytes] | None = None
        self._passwords = _Passwords(self.home / "passwords.json")
        self._creating = asyncio.Lock()
        self._lock: TextIO | None = None

    @classmethod
    async def start(cls, data: Path, *, port: int = 0, settings: Mapping[str, str] | None = None) -> Self:
        """Start a server over `data`, which is made when it does not exist; what it held is served again.

        `port` 0 takes a free one. `settings` go over our own (postgresql.conf names).
        Raises PostgresAlreadyRunningError, PostgresError.
        """
        account = await asyncio.to_thread(choose, data)
        server = cls(data, account, settings or {})
        server._take_lock()
        try:
            if not (server._cluster / "PG_VERSION").exists():
                await asyncio.to_thread(server._initialise)
            await server._launch(port)
            await server._close_to_public()
        except BaseException:
            await server.stop()
            raise
        return server

    @property
    def pid(self) -> int:
        """Return the process id of the server. Raises PostgresError when it does not run."""
        if self._process is None:
            raise PostgresError("this Postgres was stopped")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Return whether the server runs now."""
        return self._process is not None and self._process.poll() is None

    @property
    def admin_url(self) -> str:
        """Return the URL of the superuser."""
        return self._url("postgres", self._passwords.of("postgres"), "postgres")

    async def create(
        self,
        role: str,
        database: str,
        password: str | None = None,
        *,
        connections: int | None = None,
        owner: str | None = None,
    ) -> str:
        """Create a role and a database that no role but its own can enter; return the role's URL of it.

        The role owns the database, unless another role does, `owner`, which was created before: that gets what the
        role owned. The role may have `connections` at once, so that it leaves some to others; None: as many as there
        are. Both may exist: then only the password is set, and without `password` the one generated at first stays.
        Raises ValueError for a name that is not a plain identifier.
        """
        for name in (role, database, owner or role):
            if not NAME.fullmatch(name) or name == "postgres":
                raise ValueError(f"{name!r} is no plain name: use a-z, 0-9 and _, not postgres")
        async with self._creating:
            password = self._passwords.keep(role, password)
            connection = await asyncpg.connect(self.admin_url)
            try:
                known = await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role)
                verb = "ALTER" if known else "CREATE"
                # Utility statements take no parameters; the names are checked above.
                quoted = password.replace("'", "''")
                limit = -1 if connections is None else connections
                await connection.execute(f"{verb} ROLE {role} LOGIN PASSWORD '{quoted}' CONNECTION LIMIT {limit:d}")
                if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", database):
                    await connection.execute(f"CREATE DATABASE {database} OWNER {owner or role}")
                await connection.execute(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC")
            finally:
                await connection.close()
            if owner is not None:
                await self._hand_over(role, database, owner)
        return self._url(role, password, database)

    async def _hand_over(self, role: str, database: str, owner: str) -> None:
        """Give all that `role` owns in a database to `owner`, and leave it the right to connect."""
        connection = await asyncpg.connect(self._url("postgres", self._passwords.of("postgres"), database))
        try:
            await connection.execute(f"REASSIGN OWNED BY {role} TO {owner}")
            await connection.execute(f"GRANT CONNECT ON DATABASE {database} TO {role}")
        finally:
            await connection.close()

    async def drop(self, role: str, database: str) -> None:
        """Remove a database, whoever is connected, and its role. Both may be gone already."""
        async with self._creating:
            connection = await asyncpg.connect(self.admin_url)
            try:
                await connection.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
                await connection.execute(f"DROP ROLE IF EXISTS {role}")
            finally:
                await connection.close()
            self._passwords.forget(role)

    async def stop(self) -> None:
        """Stop the server; connections are closed, what was committed is on disk. May be called twice."""
        process, self._process = self._process, None
        if process is not None:
            for order in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):  # fast, immediate, by force
                if process.poll() is None:
                    process.send_signal(order)
                if await until(lambda: process.poll() is not None, STOP_TIMEOUT):
                    break
        self._release_lock()

    async def restart(self) -> None:
        """Stop the server if it runs, and start it again on the same port."""
        await self.stop()
        self._take_lock()
        await self._launch(self.port)

    def kill(self) -> None:
        """kill -9 of the server, as if the machine had lost it. `restart()` brings it back."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()  # a zombie would still hold postmaster.pid
            self._process = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _url(self, role: str, password: str, database: str) -> str:
        return f"postgresql://{role}:{password}@127.0.0.1:{self.port}/{database}"

    def _initialise(self) -> None:
        password = self._passwords.keep("postgres", None)
        with tempfile.NamedTemporaryFile("w", dir=self._account.data, prefix="pw-") as file:
            file.write(password)
            file.flush()
            self._account.own([Path(file.name)])
            done = subprocess.run(  # noqa: S603
                [
                    *self._account.prefix,
                    str(self._account.binaries / "initdb"),
                    *("-D", str(self._cluster), "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={file.name}"),
                    # Not from LANG: an empty one would give SQL_ASCII.
                    *("-E", "UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
                    *("--no-instructions", "--no-sync"),  # nothing is in it yet that a power cut could take
                ],
                capture_output=True,
                text=True,
                check=False,
                env=clean_environment(),
                cwd="/",
            )
        if done.returncode != 0:
            raise PostgresError(f"initdb failed over {self._cluster}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")

    async def _launch(self, port: int) -> None:
        if not await until(lambda: not processes_in(self._cluster), LINGER):
            raise PostgresAlreadyRunningError(
                f"processes {processes_in(self._cluster)} serve {self.home} already: stop them"
            )
        # No server answers, so a pid file is stale. Its number may be another process's by now,
        # and then it would stop the start.
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)
        for attempt in range(STARTS):
            self.port = port or _free_port()
            began = self.log.stat().st_size if self.log.exists() else 0
            process = self._process = self._spawn()
            await until(lambda: process.poll() is not None or self._ready(), START_TIMEOUT)  # noqa: B023
            if process.poll() is None and self._ready():
                return
            self.kill()
            said = self._said_since(began)
            if "Address already in use" not in said or port or attempt == STARTS - 1:
                raise PostgresError(f"Postgres did not start over {self._cluster}\n{said[-2000:]}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603
                [
                    *self._account.prefix,
                    str(self._account.binaries / "postgres"),
                    *("-D", str(self._cluster), "-p", str(self.port), *options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=clean_environment(),
                cwd="/",
                start_new_session=True,
            )

    def _take_lock(self) -> None:
        lock = (self.home / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise PostgresAlreadyRunningError(
                f"a Postgres over {self.home} runs already: stop it, or choose another folder"
            ) from None
        self._lock = lock

    def _release_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _ready(self) -> bool:
        try:
            lines = (self._cluster / "postmaster.pid").read_text().split("\n")
        except OSError:
            return False
        return len(lines) > READY_LINE and lines[READY_LINE].strip() == "ready"

    def _said_since(self, offset: int) -> str:
        with self.log.open("rb") as log:
            log.seek(offset)
            return log.read().decode(errors="replace")

    async def _close_to_public(self) -> None:
        connection = await asyncpg.connect(self.admin_url)
        try:
            await connection.execute("REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC")
        finally:
            await connection.close()


class _Passwords:
    """Generated passwords, kept beside the data and readable by us alone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}

    def of(self, role: str) -> str:
        return self._known[role]

    def keep(self, role: str, password: str | None) -> str:
        chosen = password or self._known.get(role) or secrets.token_urlsafe(24)
        if self._known.get(role) != chosen:
            self._known[role] = chosen
            self._save()
        return chosen

    def forget(self, role: str) -> None:
        if self._known.pop(role, None) is not None:
            self._save()

    def _save(self) -> None:
        scratch = self._path.with_suffix(".new")
        scratch.touch(mode=0o600)
        scratch.write_text(json.dumps(self._known, indent=1))
        scratch.replace(self._path)


def processes_in(cluster: Path) -> list[int]:
    """Return the server processes that live in a cluster: each has it as its working directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "cwd") == str(cluster):
                found.append(int(entry.name))
        except OSError:  # ended meanwhile, or another user's and so none of ours
            continue
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
