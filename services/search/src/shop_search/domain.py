"""The words of a text and of a query, and which articles may be asked for. Free of SQL and gRPC.

The index and the queries are cut into words by the same function, so that no letter, sign or syntax of a query can be
an error: what is no word is left out.
"""

import re
import unicodedata
from dataclasses import dataclass
from itertools import islice

from amends_chassis.domain import RefusedError

MAX_QUERY, MAX_WORDS, MAX_WORD = 1_000, 12, 40
"""Of a query: the characters that are looked at, and the words; of any word: the characters."""

_WORD = re.compile(r"[^\W_]+")
_CATEGORY = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_CURRENCY = re.compile(r"[A-Z]{3}")
_MAX_MINOR = 2**63 - 1


class FilterInvalid(RefusedError):
    """No article can have such a category or price."""

    reason = "FILTER_INVALID"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which articles are asked for beside the words; None is no bound."""

    category: str | None
    currency: str | None
    minimum: int
    maximum: int
    in_stock: bool


@dataclass(frozen=True, slots=True)
class Meant:
    """What one word of a query may stand for in the index."""

    word: str
    """As the index has it: without accents."""
    same: tuple[str, ...]
    """Words of the index with the same stem, e.g. singular and plural."""
    similar: tuple[str, ...]
    """Words of the index that are like it, the best first, when it is none and begins none."""
    stop: bool
    """Whether it is one like "the", which says nothing."""


@dataclass(frozen=True, slots=True)
class Match:
    """What to look for in the index: the same query twice, in Postgres' notation; empty when there is no word."""

    wide: str
    """All words, whole, begun, or replaced by what is like them."""
    narrow: str
    """Any of the words, whole: these articles come first."""
    corrected: str
    """What was searched for instead; empty when every word is known."""


def words(text: str) -> list[str]:
    """Return the words of a text, in lower case. Accents are left to the database, which leaves them out."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return [word[:MAX_WORD] for word in _WORD.findall(plain)]


def query_words(query: str) -> list[str]:
    """Return the words of a query, at most MAX_WORDS."""
    return list(islice(words(query[:MAX_QUERY]), MAX_WORDS))


def match(meant: list[Meant], weights: str = "") -> Match:
    """Return what to look for; in texts of these weights alone, of "ABCD", unless empty.

    Words that say nothing are left out, unless there are no others.
    """
    telling = [one for one in meant if not one.stop] or meant
    corrected = any(one.similar for one in telling)
    return Match(
        " & ".join(f"({_alternatives(one, weights)})" for one in telling),
        " | ".join(_quoted(word) + _marks("", weights) for one in telling for word in (one.word, *one.same)),
        " ".join(one.similar[0] if one.similar else one.word for one in telling) if corrected else "",
    )


def filter_of(category: str, currency: str, bounds: tuple[int, int], in_stock: bool) -> Filter:
    """Return the filter for a category and for prices; an empty text is none. Raises FilterInvalid."""
    if category and not _CATEGORY.fullmatch(category):
        raise FilterInvalid("category must have 1 to 40 lower-case letters, digits or -")
    minimum, maximum = bounds[0], bounds[1] or _MAX_MINOR
    if currency and not _CURRENCY.fullmatch(currency):
        raise FilterInvalid("the currency must be an ISO 4217 code such as EUR")
    if not 0 <= minimum <= maximum:
        raise FilterInvalid("the bounds of the price must be 0 or more, and the least not above the most")
    return Filter(category or None, currency or None, minimum, maximum, in_stock)


def _alternatives(one: Meant, weights: str) -> str:
    whole = [_quoted(word) + _marks("", weights) for word in (*one.same, *one.similar)]
    return " | ".join([_quoted(one.word) + _marks("*", weights), *whole])


def _marks(prefix: str, weights: str) -> str:
    return f":{prefix}{weights}" if prefix or weights else ""


def _quoted(word: str) -> str:
    return "'" + word.replace("\\", "\\\\").replace("'", "''") + "'"
