"""The node's end of its QCs: takes blocks from a Unix socket into the local database and counts the slots.

The socket lies in the node's own directory with mode 0600; what stands behind it (a QKD device's driver, an emulator)
is none of the node's business. Each block is acknowledged once it is stored. Some QCs have a source of their own within
the node, which keeps their blocks itself (node/devices/); of those none is taken from the socket.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from documents.secret import Secret
from mtls.unix_socket import short_name
from node import limits
from node.material.blocks import BadFrame, acknowledge, ask_generation, ask_rate, receive
from node.material.key_store import KeyStore
from telemetry import bugs

_log = logging.getLogger(__name__)
# QC, slot, bytes, quantum bit error rate in percent.
OnBlock = Callable[[str, int, int, float | None], None]


class QcSource(Protocol):
    """What keeps the blocks of a QC itself."""

    def start(self, on_block: OnBlock) -> None:
        """Begin; `on_block` is called after each block."""

    def stop(self) -> None:
        """Keep nothing more, and let nothing be under way."""

    def set_enabled(self, enabled: bool) -> None:
        """Whether key material is wanted."""


NO_SOURCES: Mapping[str, QcSource] = {}


class QuantumModule:
    """Listens on the Unix socket `path` for blocks of `qcs` and stores them.

    `qcs`: by name the key under which the two ends of a QC compare what they hold. `sources`: of some of them.
    """

    def __init__(
        self, path: Path, qcs: Mapping[str, Secret], store: KeyStore, sources: Mapping[str, QcSource] = NO_SOURCES
    ) -> None:
        self._path = path
        self._qcs = {qc: key for qc, key in qcs.items() if qc not in sources}
        self._sources = sources
        self._store = store
        self._on_block: OnBlock = lambda *_: None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._rates: dict[str, tuple[int, int]] = {}
        self._enabled: dict[str, bool] = {}
        self._lock = threading.Lock()
        self._stopped = False
        self._devices: dict[threading.Thread, socket.socket] = {}

    def set_enabled(self, qc: str, enabled: bool) -> None:
        """Ask the QC to generate, or to stop, from its next block on."""
        self._enabled[qc] = enabled
        if qc in self._sources:
            self._sources[qc].set_enabled(enabled)

    def set_rate(self, qc: str, low: int, high: int) -> None:
        """Ask the QC to make low to high bytes a slot from its next block on."""
        self._rates[qc] = low, high

    def start(self, on_block: OnBlock) -> None:
        """Bind the socket and accept in a thread; `on_block` is called after each block."""
        self._on_block = on_block
        self._path.unlink(missing_ok=True)
        with short_name(self._path) as name:
            self._listener.bind(name)
        self._path.chmod(0o600)  # no window: the directory is private, too
        self._listener.listen(16)
        bugs.vital_thread(self._accept, name="qc-accept", stopped=self._is_stopped).start()
        for source in self._sources.values():
            source.start(on_block)

    def stop(self) -> None:
        """Take nothing more: no block is being stored when this returns. What was not acknowledged comes again."""
        with self._lock:
            self._stopped = True
        for source in self._sources.values():
            source.stop()
        with self._listener, contextlib.suppress(OSError):  # it may never have begun to listen
            self._listener.shutdown(socket.SHUT_RDWR)  # a mere close has who waits for a device wait on
        for thread, connection in self._devices.items():
            with contextlib.suppress(OSError):  # the device is gone
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()

    def _is_stopped(self) -> bool:
        return self._stopped

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if self._is_stopped():
                    return
                bugs.report(_log, "accepting a QC device", error)
                time.sleep(limits.DEVICE_PAUSE_S)
                continue
            thread = threading.Thread(target=self._serve, args=(connection,), name="qc-blocks", daemon=True)
            with self._lock:
                if self._stopped:
                    connection.close()
                    return
                self._devices = {t: c for t, c in self._devices.items() if t.is_alive()} | {thread: connection}
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        asked: tuple[int, int] | None = None
        enabled: bool | None = None
        with connection, contextlib.suppress(OSError):
            try:
                while (block := receive(connection, self._store.clock)) is not None:
                    if block.qc not in self._qcs:
                        raise BadFrame(f"this node has no QC {block.qc!r}")
                    if self._store.store(block, block.digest(self._qcs[block.qc])):
                        qber = None if block.qber is None else block.qber / 1000
                        self._on_block(block.qc, block.slot, len(block.payload), qber)
                    block.payload.wipe()
                    wanted = self._rates.get(block.qc)
                    if wanted is not None and wanted != asked:
                        connection.sendall(ask_rate(*wanted))
                        asked = wanted
                    generate = self._enabled.get(block.qc)
                    if generate is not None and generate != enabled:
                        connection.sendall(ask_generation(generate))
                        enabled = generate
                    connection.sendall(acknowledge(block.sequence))
            except BadFrame as error:
                _log.warning("blocks refused: %s", error)
            except OSError:
                raise  # the device is gone
            except Exception as error:  # the device connects again, and sends again what was not acknowledged
                bugs.report(_log, "keeping a block", error)
