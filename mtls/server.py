"""The HTTPS server: an event loop waits for clients, threads run the application, and neither waits for the other.

A thread per connection is a thread that a slow client holds: some twenty clients that send a byte a second would shut
everybody out. Here one event loop shakes hands, reads requests until they are whole and writes the answers; a worker
thread has a request only for as long as the application computes. Whatever waits for a client has a deadline that no
dripping extends, and when connections run short, the one that has waited longest makes room for the newcomer.
"""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from wsgiref.types import WSGIApplication

from mtls.connections.door import Door, Limits
from mtls.connections.processors import Gathering
from mtls.credentials import Credentials
from mtls.liveness import KEPT_S

_BACKLOG = 1024  # connections that the kernel has accepted and we have not
_MAX_CONNECTIONS = 8000
_MAX_FILES = 65536


class Server:
    """`app` served on host:port over mutual TLS by `threads` workers, from `start` until `stop`.

    A body must have come, and an answer must have been taken, within `timeout_s` seconds; a TLS handshake must be over
    within `handshake_s` seconds, and the next request's header must have come within `idle_s` seconds. At most
    `connections` are open at a time: unless said otherwise, half the files that the process may have open, or 8000.
    Of one party the workers have at most `per_party` requests at a time; more wait, and are refused in time. What is
    done for a request has a deadline: `answer_s()` seconds, or less if the caller says so (see mtls/deadline.py).
    While many requests are answered, all is done on processor `processor`, counted round. Without one it is
    that of the process ID, so that processes spread over all.
    """

    def __init__(
        self,
        app: WSGIApplication,
        host: str,
        port: int,
        credentials: Credentials,
        *,
        threads: int = 16,
        timeout_s: float = 10.0,
        handshake_s: float = 5.0,
        idle_s: float = KEPT_S,
        connections: int | None = None,
        per_party: int | None = None,
        answer_s: Callable[[], float] | None = None,
        processor: int | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._app = Gathering(app, os.getpid() if processor is None else processor)
        self._tls = credentials.server_context()
        self._workers = ThreadPoolExecutor(threads, thread_name_prefix=f"worker-{port}")
        files = _open_files()
        connections = connections or min(_MAX_CONNECTIONS, files // 2)
        self._limits = Limits(handshake_s, idle_s, timeout_s, connections, per_party or threads, answer_s)
        self._door: Door | None = None

    @property
    def port(self) -> int:
        """The port bound, which differs from the one asked for if that was 0."""
        return self._port

    def start(self) -> None:
        """Bind and serve in a thread. OSError "cannot listen on HOST:PORT: REASON" if the address cannot be bound."""
        listener = listen(self._host, self._port)
        self._port = int(listener.getsockname()[1])
        self._door = Door(self._app, listener, self._tls, self._workers, self._limits)
        self._door.thread.start()
        self._app.loop_thread = self._door.thread.native_id

    def stop(self) -> None:
        """Accept nothing more, let running requests end for up to 3 seconds, close everything."""
        if self._door is not None:
            self._door.stop()
        self._workers.shutdown(wait=False, cancel_futures=True)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; OSError "cannot listen on HOST:PORT: REASON"."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    listener.setblocking(False)
    return listener


def _open_files() -> int:
    """Files that this process may have open, after raising the limit as far as that is ours to do."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
