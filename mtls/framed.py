"""A server of messages that are no HTTP, over mutual TLS: a header of fixed length, which says how much follows.

As in `mtls.server`, one event loop waits for clients, and threads work. Each connection asks one thing at a time. Who
the client is stands in its certificate; of one party only so many connections are open, and so many requests are with
the workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from documents.checks import Malformed
from mtls.connections.party_shares import Turns
from mtls.connections.tls_loop import Loop, report
from mtls.credentials import Credentials
from mtls.identity import Identity, Role, identity_from_uris
from mtls.liveness import notice_death
from mtls.serve import Outcome, Problem
from mtls.server import listen
from telemetry import bugs

_HANDSHAKE_S, _FAREWELL_S = 5.0, 3.0
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Exchange:
    """A request that is being answered: when it came (monotonic seconds), and whom to tell what became of the answer.
    """

    at: float
    outcome: Outcome | None = field(default=None)

    def arrived(self) -> float:
        """When the request came."""
        return self.at

    def tell_outcome(self, taken: Callable[[], None], lost: Callable[[], None]) -> None:
        """Call one of them when the answer has been written, or could not be."""
        self.outcome = Outcome(taken, lost)


class Messages(Protocol):
    """What a server speaks. Malformed of either function ends the connection."""

    header_bytes: int

    def payload_bytes(self, header: bytes) -> int:
        """How much follows that header."""

    def answer(self, caller: Identity, header: bytes, payload: bytes, exchange: Exchange) -> bytes:
        """The answer to a message; called in a worker."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections may be open, and of one party; how many workers there are, and how many requests of one
    party are with them; seconds for a payload to come or an answer to be taken, and until the next request begins."""

    connections: int
    connections_per_party: int
    threads: int
    per_party: int
    transfer_s: float = 10.0
    idle_s: float = 3600.0


class FramedServer:
    """`messages` served on host:port to parties of these `roles`, from `start` until `stop`."""

    def __init__(
        self, messages: Messages, host: str, port: int, credentials: Credentials, *, roles: Collection[Role],
        limits: Limits,
    ) -> None:  # fmt: skip
        self._messages = messages
        self._host = host
        self.port = port
        self._tls = credentials.server_context()
        self._roles = roles
        self._limits = limits
        self._workers = ThreadPoolExecutor(limits.threads, thread_name_prefix=f"stream-worker-{port}")
        self._loop = Loop()
        self._stopping = asyncio.Event()
        self._thread = bugs.vital_thread(self._run, name=f"framed-{port}", stopped=self._stopping.is_set)
        self._turns = Turns(limits.per_party)
        self._open: set[asyncio.Task[None]] = set()
        self._of: Counter[Identity] = Counter()

    def start(self) -> None:
        """Bind and serve in a thread. OSError "cannot listen on HOST:PORT: REASON" if the address cannot be bound."""
        self._listener = listen(self._host, self.port)
        self.port = int(self._listener.getsockname()[1])
        self._thread.start()

    def stop(self) -> None:
        """Close everything."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: this is the second call
            self._loop.call_soon_threadsafe(self._stopping.set)
        if self._thread.is_alive():
            self._thread.join(timeout=_FAREWELL_S)
        self._workers.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(
            self._client, sock=self._listener, ssl=self._tls, ssl_handshake_timeout=_HANDSHAKE_S,
            ssl_shutdown_timeout=_FAREWELL_S,
        )  # fmt: skip
        await self._stopping.wait()
        server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection, from the end of its handshake."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs this in one
        self._open.add(task)
        try:
            caller = _caller(writer)
            if caller is None or caller.role not in self._roles or len(self._open) > self._limits.connections:
                return
            if self._of[caller] >= self._limits.connections_per_party:
                return
            self._of[caller] += 1
            try:
                await self._converse(caller, reader, writer)
            finally:
                self._of[caller] -= 1
                self._of += Counter()  # without those that have none any more
        except (Malformed, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            _log.info("connection ended: %s", type(error).__name__)
        except Problem:
            pass  # no turn came: too much of that party is under way
        except Exception as error:
            report("request failed", error)
        finally:
            self._open.discard(task)
            writer.close()

    async def _converse(self, caller: Identity, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(self._limits.idle_s):
                header = await reader.readexactly(self._messages.header_bytes)
            exchange = Exchange(time.monotonic())
            length = self._messages.payload_bytes(header)
            async with asyncio.timeout(self._limits.transfer_s):
                payload = await reader.readexactly(length)
            async with self._turns.of(caller, within_s=self._limits.transfer_s):
                answer = await self._loop.run_in_executor(
                    self._workers, self._messages.answer, caller, header, payload, exchange
                )
            taken = False
            try:
                async with asyncio.timeout(self._limits.transfer_s):
                    writer.write(answer)
                    await writer.drain()
                await asyncio.sleep(0)  # of a write that failed asyncio tells in the loop's next turn
                taken = not writer.is_closing()
            finally:
                if (outcome := exchange.outcome) is not None:
                    if taken:
                        outcome.taken()
                    else:
                        self._loop.run_in_executor(self._workers, outcome.lost)
            if not taken:
                return


def _caller(writer: asyncio.StreamWriter) -> Identity | None:
    """Who the client's certificate says it is."""
    notice_death(writer.get_extra_info("socket"))
    names = writer.get_extra_info("peercert").get("subjectAltName", ())
    try:
        return identity_from_uris(value for kind, value in names if kind == "URI")
    except ValueError:
        return None
