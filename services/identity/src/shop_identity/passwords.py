"""Hashes passwords with Argon2id, a few at a time: a flood of them takes neither the memory nor the event loop.

The parameters are those of https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html. A hash
takes about 25 ms of a processor and 19 MiB; the library lets go of the interpreter's lock meanwhile.
"""

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from shop_identity.domain import TooBusy

AT_ONCE = 2
WAITING = 32
"""So many passwords wait for their turn, about half a second; the next one is refused."""

_Result = TypeVar("_Result")


class Passwords:
    """Hashes and checks passwords in threads."""

    def __init__(self) -> None:
        """Prepare, and make the hash of nobody's password."""
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="passwords")
        self._under_way = 0
        self._nobodys = self._hasher.hash(secrets.token_urlsafe())

    async def hash(self, password: str) -> str:
        """Return the hash of a password, with its salt and parameters. Raises TooBusy."""
        return await self._do(lambda: self._hasher.hash(password))

    async def is_right(self, password_hash: str | None, password: str) -> bool:
        """Return whether a password has this hash; False after as much work when there is no hash. Raises TooBusy."""
        return await self._do(lambda: self._matches(password_hash or self._nobodys, password))

    def is_old(self, password_hash: str) -> bool:
        """Return whether a hash was made with other parameters than those of today."""
        return self._hasher.check_needs_rehash(password_hash)

    def _matches(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except VerifyMismatchError:
            return False

    async def _do(self, work: Callable[[], _Result]) -> _Result:
        if self._under_way >= AT_ONCE + WAITING:
            raise TooBusy("too many passwords are being checked, try again")
        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._under_way -= 1
