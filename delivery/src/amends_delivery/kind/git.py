"""The git remote `kind`: where it is, what is pushed there, and the commits that deploy. Called by `up` and `ship`."""

import re
import time
from datetime import timedelta
from pathlib import Path

from amends_delivery.kind.argocd import ENVIRONMENT
from amends_delivery.running import DeliveryError, attempt, run

REMOTE = "kind"
PORT = 7430
PATIENCE = timedelta(seconds=30)
_TAG = re.compile(r"^(image: \{.*?\btag: )([\w.-]+)", re.MULTILINE)


def set_remote(root: Path, token: str) -> None:
    """Let `git push kind main` work in this clone."""
    url = f"http://dev:{token}@127.0.0.1:{PORT}/amends.git"
    known = attempt("git", "remote", "get-url", REMOTE, cwd=root)
    if known.returncode != 0:
        run("git", "remote", "add", REMOTE, url, cwd=root)
    elif known.stdout.strip() != url:
        run("git", "remote", "set-url", REMOTE, url, cwd=root)


def set_tags(root: Path, tags: dict[str, str], message: str) -> bool:
    """Write tags of images into the environment's files, and commit those files; whether any has changed."""
    changed = []
    for name, tag in tags.items():
        path = root / ENVIRONMENT / f"{name}.yaml"
        if not path.exists():
            continue
        text = path.read_text()
        new = with_tag(text, tag)
        if new != text:
            path.write_text(new)
            changed.append(str(path.relative_to(root)))
    if not changed:
        return False
    identity: tuple[str, ...] = ()
    if attempt("git", "config", "user.email", cwd=root).returncode != 0:
        identity = ("-c", "user.name=kind", "-c", "user.email=kind@localhost")
    run("git", *identity, "commit", "--quiet", "--message", message, "--only", "--", *changed, cwd=root)
    return True


def with_tag(text: str, tag: str) -> str:
    """Return the text of an environment's file with another image tag. Raises DeliveryError when it names none."""
    new, count = _TAG.subn(rf"\g<1>{tag}", text, count=1)
    if count == 0:
        raise DeliveryError("the file has no line `image: {tag: ...}`", "Write one: `make ship` puts the tag there.")
    return new


def check_whole(root: Path) -> None:
    """Raise DeliveryError in a shallow clone: the cluster's repository would lack commits, and could not be cloned."""
    if run("git", "rev-parse", "--is-shallow-repository", cwd=root).strip() == "true":
        raise DeliveryError("this clone is shallow, and has no history to push", "git fetch --unshallow")


def push(root: Path) -> str:
    """Push what is checked out as main, and return its revision. Raises DeliveryError."""
    check_whole(root)
    end = time.monotonic() + PATIENCE.total_seconds()
    while True:
        pushed = attempt("git", "push", "--quiet", REMOTE, "HEAD:refs/heads/main", cwd=root)
        if pushed.returncode == 0:
            return run("git", "rev-parse", "HEAD", cwd=root).strip()
        if "rejected" in pushed.stderr or time.monotonic() > end:
            raise DeliveryError(
                f"the push to the cluster was refused:\n{pushed.stderr.strip()}",
                f"If its main is ahead of yours: git pull --rebase {REMOTE} main",
            )
        time.sleep(1)  # its pod may have just been moved
