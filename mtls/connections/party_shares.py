"""Turns at the workers: each party's requests are with them a few at a time, so that one party holds up no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager, nullcontext

from mtls.serve import Problem


class Turns:
    """`most` requests of each party at a time; more of it wait here, in the event loop, where they hold no thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        # A party is in it while it has requests: its gate, and how many have come and not gone.
        self._gates: dict[Hashable, tuple[asyncio.Semaphore, int]] = {}

    @asynccontextmanager
    async def of(self, party: Hashable, *, within_s: float | None) -> AsyncIterator[None]:
        """A turn while the block lasts. Problem 503 if none has come after `within_s` seconds; None waits for ever."""
        gate, n = self._gates.get(party) or (asyncio.Semaphore(self._most), 0)
        self._gates[party] = gate, n + 1
        try:
            try:
                async with asyncio.timeout(within_s) if gate.locked() else nullcontext():
                    await gate.acquire()
            except TimeoutError:
                text = f"{self._most} requests of yours are being served and take long: try again"
                raise Problem(503, text, cause="busy") from None
            try:
                yield
            finally:
                gate.release()
        finally:
            gate, n = self._gates.pop(party)
            if n > 1:
                self._gates[party] = gate, n - 1
