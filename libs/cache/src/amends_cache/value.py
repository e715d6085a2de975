"""What is kept for a key: bytes with the version of the row that they come from. Read by `cache` and `server`."""

import struct
from dataclasses import dataclass
from typing import Self

_HEAD = struct.Struct(">QQ")


@dataclass(frozen=True, slots=True)
class Versioned:
    """A value and its version, from 1. Version 0 without data says that there is nothing of that name."""

    version: int
    data: bytes = b""

    @property
    def missing(self) -> bool:
        """Return whether this says that there is nothing of that name."""
        return self.version == 0


NOTHING = Versioned(0)


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A value with the moment until which nobody needs to look whether it has changed."""

    value: Versioned
    fresh_until: int
    """Milliseconds of Unix time."""

    def encode(self) -> bytes:
        """Return the bytes of the entry: version and moment, each in 8 bytes, most significant first; then the data."""
        return _HEAD.pack(self.value.version, self.fresh_until) + self.value.data

    @classmethod
    def decode(cls, written: bytes) -> Self | None:
        """Return the entry; None for bytes that another program has written."""
        if len(written) < _HEAD.size:
            return None
        version, fresh_until = _HEAD.unpack_from(written)
        return cls(Versioned(version, written[_HEAD.size :]), fresh_until)
