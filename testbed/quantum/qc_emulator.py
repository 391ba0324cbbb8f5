"""`python -m testbed.quantum.qc_emulator CONFIG.json`: the quantum channels (QCs) of a run, all in one process.

Each slot every QC makes a block of a random number of random bytes and hands the same block to the quantum modules
at both its ends, over their Unix sockets: what a real QKD link would have agreed upon, out of band of the network.
A block is kept until the module has stored it, so a node that restarts misses nothing that is still fresh. Each start
of the process begins a new epoch of every QC, whose stream counts from 0.

A node may ask for another rate of a QC, or to stop it, as an SDN agent sets a QKD device. SIGHUP reads the
configuration again; what has changed there, rates and which QCs are broken, holds. Both count from the next slot on. A
broken QC's photons do not arrive: its devices are there, and say each slot that there is no key. A QC that is off has
devices without power: they say nothing, and begin a new epoch when they are on again. The journal says what was made
(sequence, epoch, slot, offset, length, when), never the bytes; which blocks were given up, and for which end; and which
may have been on their way when all ended.
"""

from __future__ import annotations

import collections
import json
import os
import random
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from documents.checks import Malformed, integer, mapping, number, sequence, text
from documents.secret import Secret
from node.material.blocks import (
    ANSWER_BYTES,
    MAX_PAYLOAD_BYTES,
    BadFrame,
    Block,
    boottime,
    connect,
    encode_age,
    read_answer,
)
from scenario.quantum.decoy_bb84 import MOST_QBER
from scenario.quantum.qc_models import NOTHING, Model, Uniform, from_json, source
from telemetry import bugs
from telemetry.journal import Journal
from telemetry.signals import Signals

# Kept for an end that is away. At a TTL of more slots, or 16 KiB and more a slot, what is given up may be fresh yet.
KEPT_BLOCKS = 4096
_KEPT_BYTES = 64 << 20
_RECONNECT_S = 0.2
_FLAGS = ("broken", "off")
Wish = tuple[int, int] | bool  # a rate, or whether to generate


@dataclass(frozen=True, slots=True)
class QcConfig:
    """A QC: bytes a slot, uniform in [low, high], and the folders of the two nodes with their `blocks.sock`.

    `qber_percent` is the mean of the quantum bit error rates that it reports. `model`: what it makes, where that is not
    uniform; a rate that is set while it runs takes its place. `broken`: nothing comes of it. `off`: nor do its devices
    say so. `eve`: the part of the pulses that somebody intercepts and sends again. A `dark` one makes nothing until the
    nodes at both its ends want it to, and then only after `setup_s` seconds.
    """

    qc: str
    low: int
    high: int
    ends: tuple[Path, ...]
    qber_percent: float = 2.0
    broken: bool = False
    off: bool = False
    model: Model | None = None
    eve: float = 0.0
    dark: bool = False
    setup_s: float = 0.0

    @property
    def makes(self) -> Model:
        """What it makes."""
        return self.model or Uniform(self.low, self.high, self.qber_percent / 100)


@dataclass(frozen=True, slots=True)
class EmulatorConfig:
    """The emulator's options. With `seed` the output is the same in each run: for experiments, not for secrets."""

    directory: Path
    slot_s: float
    seed: int | None
    qcs: tuple[QcConfig, ...]


def load(path: Path) -> EmulatorConfig:
    """The configuration in `path`. ValueError names the member and what was expected."""
    given = mapping(json.loads(path.read_text()), "configuration")
    qcs = []
    for i, entry in enumerate(sequence(given.get("qcs"), "qcs", longest=10_000)):
        qc = mapping(entry, f"qcs[{i}]")
        low = integer(qc.get("low"), f"qcs[{i}].low", low=0, high=MAX_PAYLOAD_BYTES)
        high = integer(qc.get("high"), f"qcs[{i}].high", low=low, high=MAX_PAYLOAD_BYTES)
        ends = tuple(Path(text(e, f"qcs[{i}].ends", longest=4096)) for e in sequence(qc.get("ends"), "ends", longest=2))
        qber = number(qc.get("qber_percent", 2.0), f"qcs[{i}].qber_percent", low=0, high=50)
        flags = [qc.get(member, False) for member in (*_FLAGS, "dark")]
        for member, flag in zip((*_FLAGS, "dark"), flags, strict=True):
            if not isinstance(flag, bool):
                raise Malformed(f"qcs[{i}].{member}", "true or false")
        try:
            model = None if qc.get("model") is None else from_json(mapping(qc["model"], f"qcs[{i}].model"))
        except (KeyError, TypeError):
            raise Malformed(f"qcs[{i}].model", "a model of QCs with its parameters") from None
        eve = float(number(qc.get("eve", 0.0), f"qcs[{i}].eve", low=0, high=1))
        broken, off, dark = flags
        setup_s = number(qc.get("setup_s", 0), f"qcs[{i}].setup_s", low=0, high=3600)
        name = text(qc.get("qc"), f"qcs[{i}].qc")
        qcs.append(
            QcConfig(name, low, high, ends, qber, broken=broken, off=off, model=model, eve=eve, dark=dark,
                     setup_s=setup_s)
        )  # fmt: skip
    seed = given.get("seed")
    return EmulatorConfig(
        directory=Path(text(given.get("directory"), "directory", longest=4096)),
        slot_s=float(number(given.get("slot_s", 1.0), "slot_s", low=0.001, high=3600)),
        seed=None if seed is None else integer(seed, "seed", low=0, high=(1 << 63) - 1),
        qcs=tuple(qcs),
    )


class End:
    """Delivers blocks to the quantum module in folder `node`, in order, each until it is acknowledged."""

    def __init__(
        self, node: Path, journal: Journal, on_lost: Callable[[End, Block], None], on_wish: Callable[[End, Wish], None],
        *, enabled: bool,
    ) -> None:  # fmt: skip
        self.name = node.name
        self._node = node
        self._journal = journal
        self._on_lost = on_lost
        self._on_wish = on_wish
        self.enabled = enabled  # whether the node there wants the QC to generate
        self._waiting: collections.deque[Block] = collections.deque()
        self._waiting_bytes = 0
        self._sent: Block | None = None  # the module may have it, though it has not said so
        self._some = threading.Condition()
        bugs.vital_thread(self._run, name=f"end-{node.name}").start()

    def put(self, block: Block) -> None:
        """Take `block` for delivery; the oldest one waiting is given up if there are too many.

        None that was sent is: what is told to be lost has never come there.
        """
        with self._some:
            self._waiting.append(block)
            self._waiting_bytes += len(block.payload)
            while len(self._waiting) > KEPT_BLOCKS or self._waiting_bytes > _KEPT_BYTES:
                oldest = 1 if self._waiting[0] is self._sent else 0
                self._on_lost(self, self._waiting[oldest])
                self._waiting_bytes -= len(self._waiting[oldest].payload)
                del self._waiting[oldest]
            self._some.notify()

    def oldest(self) -> list[Block]:
        """The oldest block of each epoch that waits: it, and those after it, may not have come there yet."""
        with self._some:
            return list({block.epoch: block for block in reversed(self._waiting)}.values())

    def _run(self) -> None:
        while True:
            try:
                with connect(self._node) as connection:
                    while True:
                        self._deliver(connection, self._next())
            except (OSError, BadFrame):
                time.sleep(_RECONNECT_S)  # the node is not up yet, or went down

    def _next(self) -> Block:
        """The oldest block that waits, once it is on record: one that a killed emulator forgot came to no node."""
        with self._some:
            while not self._waiting or self._journal.is_behind:
                self._some.wait(_RECONNECT_S if self._waiting else None)
            self._sent = self._waiting[0]
            return self._sent

    def _deliver(self, connection: socket.socket, block: Block) -> None:
        connection.sendall(block.encode())
        while not isinstance(answer := read_answer(self._receive(connection)), int) or isinstance(answer, bool):
            if answer is None:
                connection.sendall(encode_age(boottime() - block.made))
            else:
                self._on_wish(self, answer)
        with self._some:
            if self._waiting and self._waiting[0] is block:
                self._waiting_bytes -= len(self._waiting.popleft().payload)

    @staticmethod
    def _receive(connection: socket.socket) -> bytes:
        data = b""
        while len(data) < ANSWER_BYTES:
            chunk = connection.recv(ANSWER_BYTES - len(data))
            if not chunk:
                raise ConnectionResetError
            data += chunk
        return data


class Qc:
    """One quantum channel: makes blocks, and remembers how long its stream is."""

    def __init__(self, config: QcConfig, seed: int | None, journal: Journal) -> None:
        self.config = self._read = config
        self._changing = threading.Lock()  # of `config`: by ends and by whoever rereads it
        self._journal = journal
        # Three generators, so that the number of bytes depends on no other draw: virtual time makes no other.
        self._chance = _source(seed, config.qc)
        self._random = _source(seed, f"{config.qc}/key")
        self._noise = _source(seed, f"{config.qc}/qber")
        self._makes = config.makes
        self._source = source(self._makes, self._chance)
        self._stopped_by_qber = False
        self._begin()
        self._ready = 0.0  # a dark one that both ends want makes nothing before
        self._ends = [End(folder, journal, self._lost, self._wished, enabled=not config.dark) for folder in config.ends]

    def _begin(self) -> None:
        """A new epoch, in which everything counts from 0."""
        # Never from the seed: no two starts may have one in common.
        self._epoch = 1 + secrets.randbelow((1 << 63) - 1)
        self._sequence = 0
        self._offset = 0

    def set_rate(self, low: int, high: int) -> None:
        """Make low to high bytes a slot from the next one on. Either end may ask; both usually do."""
        with self._changing:
            if (low, high) != (self.config.low, self.config.high) or self.config.model is not None:
                self.config = replace(self.config, low=low, high=high, model=None)
                self._journal.event("rate", qc=self.config.qc, low=low, high=high)

    def reread(self, config: QcConfig) -> None:
        """Follow what has changed in the configuration; a node may have set another rate meanwhile."""
        if (config.low, config.high) != (self._read.low, self._read.high):
            self.set_rate(config.low, config.high)
        with self._changing:
            for member in (*_FLAGS, "eve"):
                if (now := getattr(config, member)) != getattr(self.config, member):
                    if member == "off" and not now:
                        self._begin()
                    self.config = replace(self.config, **{member: now})
                    self._journal.event(member, qc=config.qc, **{member: now})
        self._read = config

    def _wished(self, end: End, wish: Wish) -> None:
        if isinstance(wish, tuple):
            self.set_rate(*wish)
        elif wish != end.enabled:
            end.enabled = wish
            if self.config.dark:
                self._ready = boottime() + self.config.setup_s
            self._journal.event("generation", qc=self.config.qc, enabled=all(e.enabled for e in self._ends))

    def make(self, slot: int) -> None:
        """Make the block of `slot` and hand it to both ends; none if the QC is off.

        It is empty at rate 0, where one end wants no more, if the QC is broken, and while there is no room for the
        record of what is made: time passes all the same.
        """
        config = self.config  # an end may set another rate at any time
        wanted = all(end.enabled for end in self._ends) and boottime() >= self._ready
        generates = wanted and not config.broken and not config.off and not self._journal.is_behind
        if config.makes != self._makes:
            self._makes = config.makes
            self._source = source(self._makes, self._chance)
        # A model goes on, whether photons arrive and whether there is power: what it would have made never comes later.
        brought = self._source.make(slot, config.eve) if generates or config.model is not None else NOTHING
        if config.off:
            return
        n_bytes = brought.n_bytes if generates else 0
        qber = None
        if generates and brought.qber is not None and (n_bytes or brought.qber > MOST_QBER):
            # What error correction would have found, also where it is why no key is made; it varies with each block.
            qber = round(100_000 * brought.qber * self._noise.uniform(0.9, 1.1))
        if (stopped := qber is not None and not n_bytes) != self._stopped_by_qber:
            self._stopped_by_qber = stopped
            percent = None if brought.qber is None else round(100 * brought.qber, 3)
            self._journal.event("no_key" if stopped else "key_again", qc=config.qc, qber_percent=percent)
        made = boottime()
        data = self._random.randbytes(n_bytes)
        self._journal.event(
            "block", qc=config.qc, sequence=self._sequence, epoch=self._epoch, slot=slot, offset=self._offset,
            n_bytes=n_bytes, made=round(made, 6),
        )  # fmt: skip
        for end in self._ends:
            block = Block(config.qc, self._sequence, slot, self._offset, Secret(data), qber, self._epoch, made)
            end.put(block)
        self._sequence += 1
        self._offset += n_bytes

    def undelivered(self) -> list[list[Any]]:
        """[QC, epoch, node, sequence number] of the oldest blocks that may not have come to an end, one an epoch."""
        return [[self.config.qc, block.epoch, end.name, block.sequence] for end in self._ends for block in end.oldest()]

    def _lost(self, end: End, block: Block) -> None:
        self._journal.event("block_lost", qc=block.qc, sequence=block.sequence, epoch=block.epoch, end=end.name)


def _source(seed: int | None, name: str) -> random.Random:
    """Where random numbers come from: the same in each run of a seed, others in each run without one."""
    return random.SystemRandom() if seed is None else random.Random(f"{seed}/{name}")  # noqa: S311 - asked for


def _reread(path: Path, qcs: dict[str, Qc], journal: Journal) -> None:
    """Take over what has changed; a configuration that is wrong, or has other QCs, changes nothing."""
    try:
        new = load(path)
    except (OSError, ValueError) as error:
        journal.event("rates_refused", error=str(error))
        return
    for config in new.qcs:
        qc = qcs.get(config.qc)
        if qc is not None:
            qc.reread(config)


def main(path: Path) -> int:
    """Run the QCs that `path` describes until SIGTERM or SIGINT; the exit status."""
    signals = Signals(signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    try:
        config = load(path)
    except (OSError, ValueError, Malformed) as error:
        print(f"qc_emulator: {path}: {error}", file=sys.stderr)
        return 2
    os.umask(0o077)
    config.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    journal = Journal(config.directory / "journal.jsonl", "qc-emulator")
    journal.event("started")
    qcs = {qc.qc: Qc(qc, config.seed, journal) for qc in config.qcs}
    print("ready", flush=True)
    start, slot = time.monotonic(), 0
    while True:
        slot += 1
        for qc in qcs.values():
            qc.make(slot)
        # On a fixed grid: the mean rate stays true when one slot is late.
        while (came := signals.next(max(0.0, start + slot * config.slot_s - time.monotonic()))) is not None:
            if came != signal.SIGHUP:
                journal.event("stopped", waiting=[row for qc in qcs.values() for row in qc.undelivered()])
                return 0
            _reread(path, qcs, journal)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("usage: python -m testbed.quantum.qc_emulator CONFIG.json", file=sys.stderr)
        sys.exit(2)
    bugs.exit_with("qc_emulator", lambda: main(Path(sys.argv[1])))
