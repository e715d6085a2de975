"""Takes pushes: nothing is forced onto main, nothing is lost between two that come at once.

dulwich knows the protocol and no rules: it has no denyNonFastForwards, and says `ok` when a branch has moved
meanwhile. So a push is applied under a lock, and each of its updates is looked at first. Called by `serving`.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator

from dulwich.diff_tree import tree_changes
from dulwich.graph import can_fast_forward
from dulwich.objects import Commit, ObjectID
from dulwich.refs import Ref
from dulwich.repo import BaseRepo, Repo
from dulwich.server import ReceivePackHandler

MAIN = Ref(b"refs/heads/main")
ZERO = b"0" * 40
BRANCHES, TAGS = b"refs/heads/", b"refs/tags/"
TAKEN = (BRANCHES, TAGS)

Pushed = Callable[[str, str, str, list[str]], None]
"""Called after an update with the branch's full name, the commit before and after, and the files that differ."""


def refusal(repo: BaseRepo, ref: Ref, old: bytes, new: bytes) -> bytes | None:
    """Return why an update is not taken, for the person who pushes; None when it is."""
    if not ref.startswith(TAKEN):
        return b"only branches and tags are taken"
    if new != ZERO and not _is_whole(repo, new, branch=ref.startswith(BRANCHES)):
        return b"what it names is not in the pack, nor here already"
    now = repo.get_refs().get(ref, ZERO)
    if now != old:
        return b"the branch has moved meanwhile: fetch, and push again"
    if ref != MAIN or now == ZERO:
        return None
    if new == ZERO:
        return b"main is what is deployed, and is not deleted"
    if not can_fast_forward(repo, ObjectID(now), ObjectID(new)):
        return b"main is not rewritten: revert what is wrong, and push that"
    return None


def _is_whole(repo: BaseRepo, new: bytes, *, branch: bool) -> bool:
    """Return whether an object is here: of a branch, a commit with its tree and all that leads to it."""
    store = repo.object_store
    if ObjectID(new) not in store:
        return False
    if not branch:
        return True
    known = {ObjectID(one) for one in repo.get_refs().values()}
    seen: set[ObjectID] = set()
    left = [ObjectID(new)]
    while left:
        commit = left.pop()
        if commit in known or commit in seen:
            continue
        seen.add(commit)
        if commit not in store:
            return False
        found = store[commit]
        if not isinstance(found, Commit) or found.tree not in store:
            return False
        left.extend(found.parents)
    return True


def changed_files(repo: BaseRepo, old: bytes, new: bytes) -> list[str]:
    """Return the paths that differ between two commits; all of the second one's when the first is not there."""
    before = None if old == ZERO else _tree(repo, old)
    changes = tree_changes(repo.object_store, before, _tree(repo, new))
    paths = {entry.path for change in changes for entry in (change.old, change.new) if entry is not None}
    return sorted(path.decode(errors="replace") for path in paths if path is not None)


def _tree(repo: BaseRepo, commit: bytes) -> ObjectID:
    found = repo.object_store[ObjectID(commit)]
    if not isinstance(found, Commit):
        raise TypeError(f"{commit.decode()} is no commit")
    return ObjectID(found.tree)


class Receive(ReceivePackHandler):
    """One push. Made by dulwich, from what `receiver` returns."""

    lock: threading.Lock
    former: deque[bytes]
    pushed: Pushed
    repo: Repo

    def _apply_pack(self, refs: list[tuple[ObjectID, ObjectID, Ref]]) -> Iterator[tuple[bytes, bytes]]:
        with self.lock:
            answers = list(super()._apply_pack(refs))
        taken = {name for name, answer in answers if answer == b"ok"}
        for old, new, ref in refs:
            if ref in taken and new != ZERO and ref.startswith(BRANCHES):  # nobody deploys a tag
                self.pushed(ref.decode(), old.decode(), new.decode(), changed_files(self.repo, old, new))
        yield from answers

    def _on_update(self, ref_name: Ref, old_sha: ObjectID, new_sha: ObjectID) -> bytes | None:
        why = refusal(self.repo, ref_name, old_sha, new_sha)
        if why is None and old_sha != ZERO:
            self.former.append(old_sha)  # before the branch moves: who is told of it now will ask for it
        return why


def receiver(lock: threading.Lock, former: deque[bytes], pushed: Pushed) -> type[Receive]:
    """Return the handler of pushes that share a lock, note in `former` what branches were, and tell `pushed`."""
    return type("Receive", (Receive,), {"lock": lock, "former": former, "pushed": staticmethod(pushed)})
