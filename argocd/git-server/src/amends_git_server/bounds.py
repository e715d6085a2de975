"""The limits of one caller: memory, threads, the size of a push. Used by `serving`.

A pack of some hundred kilobytes can hold an object of hundreds of megabytes, and dulwich takes an object apart in
memory; so the bound is one on the memory of the process, and a push that meets it fails alone.
"""

import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIServer

MOST_PUSHED = 32 * 1024 * 1024
"""Bytes of a request's body."""
AT_ONCE = 8
"""The number of requests that are worked on at once; others wait for a moment, and are then asked to come again."""
WAITING = 32
"""The number of open connections without a request; a new one beyond it closes the oldest."""
PATIENCE = 20.0
"""Seconds for which a request waits for its turn."""
_STACK = 2 * 1024 * 1024
"""Bytes of a thread's stack: dulwich needs more than half a MiB for a repository of some thousand files, and a stack
that is too small ends the process."""


def limit_memory(size: int) -> None:
    """Let this process have `size` bytes of data: what wants more fails with a MemoryError."""
    threading.stack_size(_STACK)
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))


class Turns:
    """Requests take turns, so that their memory adds up to little."""

    def __init__(self) -> None:
        self._free = threading.BoundedSemaphore(AT_ONCE)

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Yield whether it is this request's turn, after waiting for a while."""
        taken = self._free.acquire(timeout=PATIENCE)
        try:
            yield taken
        finally:
            if taken:
                self._free.release()


class Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection, and a bound on those that keep silent."""

    daemon_threads = True
    request_queue_size = 128  # or the system keeps who comes waiting for seconds, and then forgets some

    def __init__(self, *arguments: Any) -> None:
        """Listen on IPv6, and then on IPv4 too, when the address is one of IPv6."""
        self._silent: dict[socket.socket, None] = {}  # in the order of their arrival
        self._lock = threading.Lock()
        if ":" in arguments[0][0]:
            self.address_family = socket.AF_INET6
        super().__init__(*arguments)

    def server_bind(self) -> None:
        """Bind to both families where the address is the wildcard of IPv6."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin a thread, and end the connection that has been silent for longest when there are too many."""
        with self._lock:
            oldest = next(iter(self._silent)) if len(self._silent) >= WAITING else None
            if oldest is not None:
                del self._silent[oldest]
            self._silent[request] = None
        if oldest is not None:
            try:
                oldest.shutdown(socket.SHUT_RDWR)
            except OSError:
                oldest.close()  # it has ended meanwhile
        super().process_request(request, client_address)

    def spoke(self, request: Any) -> None:
        """Note that a connection has said what it wants, or is over."""
        with self._lock:
            self._silent.pop(request, None)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection, and end it."""
        self.spoke(request)
        super().shutdown_request(request)
