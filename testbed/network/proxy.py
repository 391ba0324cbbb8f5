"""A way for TCP connections on loopback that can be slow, break what passes, or hold it up, as a network does."""

from __future__ import annotations

import asyncio
import threading

from testbed.machine.namespaces import enter_network
from testbed.network.loopback import LOOPBACK, free_port

_START_S, _STOP_S = 10.0, 10.0
_LOOK_S = 0.05  # between two looks at whether what is held up may go on
_PIECE_BYTES = 1 << 16


class Proxy:
    """Carries connections from `port` to another one, as long as it is neither told to delay nor to drop them.

    `network`: a descriptor of the network namespace of both; None: this process's own. `delay_s`: so much later each
    piece arrives. `drops`: what passes breaks its connection. `holds`: nothing passes, and nobody is told.
    """

    def __init__(self, target: int, *, port: int | None = None, network: int | None = None) -> None:
        self.port = port or free_port()
        self.delay_s = 0.0
        self.drops = self.holds = False
        self.delayed = 0  # so many pieces so far
        self._target = target
        self._network = network
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()
        self._thread.start()
        if not self._ready.wait(_START_S):
            raise TimeoutError(f"nothing listens at port {self.port}")

    def stop(self) -> None:
        """End it, with all that it carries."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_S)

    def _run(self) -> None:
        if self._network is not None:
            enter_network(self._network)
        server = self._loop.run_until_complete(asyncio.start_server(self._carry, LOOPBACK, self.port))
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
            self._loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_writer = None
        try:
            far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self._target)
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for end in (writer, far_writer):
                if end is not None:
                    end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_PIECE_BYTES):
            if self.delay_s:
                self.delayed += 1
                await asyncio.sleep(self.delay_s)
            while self.holds:
                await asyncio.sleep(_LOOK_S)
            if self.drops:
                # The request may have arrived, and only its answer be lost: the worst case.
                raise ConnectionResetError
            writer.write(data)
            await writer.drain()
        writer.close()
