"""Finds the name that was probably meant, quickly even among thousands.

Called by `findings.suggestion`, and only when there is a mistake: importing difflib costs 10 ms.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache

CUTOFF = 0.6
"""The least similarity of two names, as difflib counts it."""
FEW = 50
"""Up to this many names are compared one by one."""
NEAREST = 8
"""Of more names, only this many are compared: those that share the most pairs of letters."""


def nearest(name: str, known: Sequence[str]) -> str | None:
    """Return the name among `known`, sorted, that is most similar to `name`; None when none is near."""
    candidates = known if len(known) <= FEW else _likely(name, tuple(known))
    near = get_close_matches(name, candidates, n=1, cutoff=CUTOFF)
    return near[0] if near else _folded(tuple(known)).get(_fold(name))


def _likely(name: str, known: tuple[str, ...]) -> list[str]:
    index = _index(known)
    shared = Counter(place for pair in _pairs(name) for place in index.get(pair, ()))
    return [known[place] for place, _ in shared.most_common(NEAREST)]


@lru_cache(maxsize=8)
def _index(known: tuple[str, ...]) -> Mapping[str, Sequence[int]]:
    index: dict[str, list[int]] = {}
    for place, name in enumerate(known):
        for pair in _pairs(name):
            index.setdefault(pair, []).append(place)
    return index


@lru_cache(maxsize=8)
def _folded(known: tuple[str, ...]) -> Mapping[str, str]:
    return {_fold(name): name for name in known}


def _fold(name: str) -> str:
    return name.replace("_", "").casefold()


def _pairs(name: str) -> Iterable[str]:
    """Return the pairs of letters in a name, including its beginning and its end."""
    framed = f"^{name.casefold()}$"
    return {framed[at : at + 2] for at in range(len(framed) - 1)}
