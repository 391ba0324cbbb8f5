"""The QC emulators' process, with the test at both ends of its QCs."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from node.material.blocks import Block, acknowledge, ask_rate, receive
from scenario.quantum.qc_models import Blocks, Model, to_json
from simulation.supply import Modelled, Uniform
from telemetry import journal
from testbed.machine.processes import Process, execute
from tests.support.leaks import made_by_seed
from tests.support.waiting import until

QC = "a-b/1"


class Module:
    """A quantum module played by the test: takes blocks at FOLDER/blocks.sock, acknowledges them, keeps them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.blocks: list[Block] = []
        self.wanted_rate: tuple[int, int] | None = None
        self.silent = False  # takes blocks, and never says so
        self.on_block: Callable[[Block], object] = lambda _: None
        self._connections: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        fd = os.open(folder, os.O_PATH)
        (folder / "blocks.sock").unlink(missing_ok=True)
        self._listener.bind(f"/proc/self/fd/{fd}/blocks.sock")
        os.close(fd)
        self._listener.listen()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            while block := receive(connection):
                self.on_block(block)
                self.blocks.append(block)
                if self.silent:
                    continue
                if self.wanted_rate is not None:
                    connection.sendall(ask_rate(*self.wanted_rate))
                connection.sendall(acknowledge(block.sequence))
        except OSError:
            pass
        finally:
            connection.close()

    def close(self) -> None:
        """Go away, as a node that crashed."""
        for end in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class Emulator:
    """The process, and its configuration."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.process: Process | None = None
        self.modules: list[Module] = []

    def write(
        self, low: int = 33, high: int = 47, *, broken: bool = False, off: bool = False, **options: object
    ) -> Path:
        """Write the configuration."""
        ends = [str(self.directory / "a"), str(self.directory / "b")]
        qcs = [{"qc": QC, "low": low, "high": high, "ends": ends, "broken": broken, "off": off}]
        path = self.directory / "qcs.json"
        path.write_text(json.dumps({"directory": str(self.directory / "qcs"), "slot_s": 0.05, "qcs": qcs} | options))
        return path

    def start(self, **options: object) -> None:
        """Start the process."""
        command = [sys.executable, "-P", "-m", "testbed.quantum.qc_emulator", str(self.write(**options))]
        self.process = Process("qcs", partial(execute, command), self.directory / "log")
        self.process.wait_ready(10)

    def module(self, end: str) -> Module:
        """A module at that end."""
        made = Module(self.directory / end)
        self.modules.append(made)
        return made

    def stop(self) -> None:
        """End everything."""
        if self.process is not None:
            self.process.stop()
        for module in self.modules:
            module.close()


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Emulator]:
    """Folders that lie deeper than a Unix socket's path may be long; nothing started."""
    directory = tmp_path / ("deep" * 20)
    directory.mkdir()
    made = Emulator(directory)
    yield made
    made.stop()


def test_both_ends_get_the_same_blocks(emulator):
    """One stream: sequence and slots count up, offsets join, bytes are the same, lengths lie within the rate."""
    a, b = emulator.module("a"), emulator.module("b")
    emulator.start()
    until(lambda: min(len(a.blocks), len(b.blocks)) >= 10)

    blocks = a.blocks[:10]
    assert blocks == b.blocks[:10]
    assert [x.sequence for x in blocks] == list(range(10))
    assert [x.slot for x in blocks] == list(range(1, 11))
    assert all(33 <= len(x.payload) <= 47 for x in blocks)
    assert [x.offset for x in blocks[1:]] == [x.offset + len(x.payload) for x in blocks[:-1]]
    assert len({x.payload.reveal() for x in blocks}) == 10


def test_end_that_was_away_gets_what_it_missed(emulator):
    """In order, without a gap, as soon as it is back."""
    a, b = emulator.module("a"), emulator.module("b")
    emulator.start()
    until(lambda: len(b.blocks) >= 3)
    b.close()
    until(lambda: len(a.blocks) >= len(b.blocks) + 10)

    again = emulator.module("b")
    until(lambda: len(again.blocks) >= 10)

    seen = {x.sequence: x for x in b.blocks + again.blocks}
    assert sorted(seen) == list(range(len(seen)))
    assert all(seen[x.sequence] == x for x in a.blocks[: len(seen)] if x.sequence in seen)


def test_end_that_was_away_for_hundreds_of_slots_gets_all_of_them(emulator):
    """With a TTL of as many slots they are as good as new."""
    a = emulator.module("a")
    emulator.start(slot_s=0.005)
    until(lambda: len(a.blocks) >= 400)

    b = emulator.module("b")
    until(lambda: len(b.blocks) >= 400)

    assert b.blocks[:400] == a.blocks[:400]


def test_no_more_than_64_mib_are_kept_for_an_end_that_is_away(emulator):
    """The oldest blocks are given up, and told of."""
    a = emulator.module("a")
    emulator.start(low=1 << 20, high=1 << 20)
    until(lambda: len(a.blocks) > 66)

    lost = [e["sequence"] for e in events(emulator, "block_lost")]
    assert lost
    assert lost == list(range(len(lost)))
    assert len(events(emulator, "block")) - len(lost) <= 65


def test_seed_makes_the_same_output_again(emulator):
    """For experiments; without a seed two runs have nothing in common, error rates included."""
    outputs, errors, epochs = [], [], set()
    for seed in (5, 5, None, None):
        a, _ = emulator.module("a"), emulator.module("b")
        emulator.start(seed=seed)
        until(lambda a=a: len(a.blocks) >= 5)
        outputs.append([x.payload.reveal() for x in a.blocks[:5]])
        errors.append([x.qber for x in a.blocks[:5]])
        epochs |= {x.epoch for x in a.blocks}
        emulator.stop()

    assert (outputs[0], errors[0]) == (outputs[1], errors[1])
    assert not set(outputs[2]) & set(outputs[3])
    assert errors[2] != errors[3]
    assert len(epochs) == 4, "each start begins a new epoch, whatever the seed"


def test_what_came_of_a_seed_can_be_drawn_anew(emulator):
    """As tests do that look for what QCs made where it must not be."""
    a, _ = emulator.module("a"), emulator.module("b")
    emulator.start(seed=5)
    until(lambda: len(a.blocks) >= 5)

    drawn = made_by_seed(emulator.directory / "qcs" / "journal.jsonl", 5, {QC: (33, 47)})

    assert drawn[:5] == [block.payload.reveal() for block in a.blocks[:5]]


@pytest.mark.parametrize("model", [None, Blocks(900, 3.0, 1.0)], ids=["uniform", "blocks"])
def test_seed_makes_as_much_in_each_slot_as_in_virtual_time(emulator, model: Model | None):
    """So scenarios meet the same QCs in both engines."""
    a, _ = emulator.module("a"), emulator.module("b")
    qc = {"qc": QC, "low": 33, "high": 47, "ends": [str(emulator.directory / end) for end in "ab"]}
    emulator.start(seed=7, qcs=[qc | ({} if model is None else {"model": to_json(model)})])
    until(lambda: len(a.blocks) >= 30)

    supply = Uniform(33, 47, f"7/{QC}", 30) if model is None else Modelled(model, f"7/{QC}", 30)
    supply.made(-1.0)  # until time begins
    heads = {block.slot: block.offset + len(block.payload) for block in a.blocks[:30]}

    assert list(heads) == list(range(1, 31))
    assert list(heads.values()) == list(supply.heads[1:31])
    assert len(set(heads.values())) > 5


def test_rate_changes_while_running(emulator):
    """From the next slot on; at rate 0 time still passes, in empty blocks."""
    a, _ = emulator.module("a"), emulator.module("b")
    emulator.start()
    until(lambda: len(a.blocks) >= 3)

    for low, high in ((200, 210), (0, 0)):
        emulator.write(low, high)
        emulator.process.signal(signal.SIGHUP)
        until(lambda low=low, high=high: low <= len(a.blocks[-1].payload) <= high)
    slot = a.blocks[-1].slot
    until(lambda: a.blocks[-1].slot > slot + 3)

    assert len(a.blocks[-1].payload) == 0


def test_emulator_that_slept_for_some_slots_goes_on(emulator):
    """It makes up for the slots that it missed."""
    a, _ = emulator.module("a"), emulator.module("b")
    emulator.start()
    until(lambda: len(a.blocks) > 2)

    for _ in range(3):
        emulator.process.pause()
        time.sleep(0.2)
        emulator.process.wake()
        seen = len(a.blocks)
        until(lambda seen=seen: len(a.blocks) > seen + 5)

    assert emulator.process.alive()
    assert not events(emulator, "stopped")


def test_broken_qc_makes_empty_blocks_and_its_stream_goes_on(emulator):
    """Time passes, offsets stay; healed, it makes keys at the rate that a node has set meanwhile."""
    a, b = emulator.module("a"), emulator.module("b")
    emulator.start()
    a.wanted_rate = 300, 310
    until(lambda: a.blocks and len(a.blocks[-1].payload) >= 300)

    for broken in (True, False):
        emulator.write(broken=broken)
        emulator.process.signal(signal.SIGHUP)
        until(lambda broken=broken: (len(a.blocks[-1].payload) == 0) is broken)
    blocks = list(a.blocks)
    until(lambda: len(b.blocks) >= len(blocks))

    assert len(blocks[-1].payload) >= 300
    assert [x.sequence for x in blocks] == list(range(len(blocks)))
    assert all(y.offset == x.offset + len(x.payload) for x, y in itertools.pairwise(blocks))
    assert [x.payload.reveal() for x in b.blocks[: len(blocks)]] == [x.payload.reveal() for x in blocks]


def test_device_that_lost_its_power_is_silent_and_starts_anew(emulator):
    """A new epoch at both ends, in which sequence and offset count from 0."""
    a, b = emulator.module("a"), emulator.module("b")
    emulator.start()
    until(lambda: len(a.blocks) > 2)

    emulator.write(off=True)
    emulator.process.signal(signal.SIGHUP)
    until(lambda: events(emulator, "off"))
    made = len(events(emulator, "block"))
    emulator.write()
    emulator.process.signal(signal.SIGHUP)
    until(lambda: b.blocks[-1].epoch != b.blocks[0].epoch)

    assert [e["off"] for e in events(emulator, "off")] == [True, False]
    again = events(emulator, "block")[made]
    assert (again["sequence"], again["offset"]) == (0, 0)
    until(lambda: a.blocks[-1].epoch == b.blocks[-1].epoch == again["epoch"])


@pytest.mark.parametrize("end", ["a", "b"])
def test_node_at_either_end_sets_the_rate(emulator, end):
    """As an SDN agent sets a QKD device; the other end gets blocks of the new length, too."""
    modules = {"a": emulator.module("a"), "b": emulator.module("b")}
    emulator.start()
    modules[end].wanted_rate = 300, 310

    assert until(lambda: all(m.blocks and 300 <= len(m.blocks[-1].payload) <= 310 for m in modules.values()))


def test_journal_says_what_was_made_and_not_the_bytes(emulator):
    """Enough to account for every byte."""
    a, _ = emulator.module("a"), emulator.module("b")
    emulator.start()
    until(lambda: len(a.blocks) >= 5)

    path = emulator.directory / "qcs" / "journal.jsonl"
    events = [e for e in journal.read(path) if e["event"] == "block"][:5]
    assert [(e["sequence"], e["epoch"], e["slot"], e["offset"], e["n_bytes"]) for e in events] == [
        (x.sequence, x.epoch, x.slot, x.offset, len(x.payload)) for x in a.blocks[:5]
    ]
    assert all(x.made <= e["made"] + 1e-3 for e, x in zip(events, a.blocks, strict=False))
    assert not [x for x in a.blocks if x.payload.reveal().hex() in path.read_text()]


def events(emulator: Emulator, name: str) -> list[dict[str, object]]:
    """Events of that name in the emulator's journal."""
    return journal.read(emulator.directory / "qcs" / "journal.jsonl", name)


def test_block_of_which_there_is_no_record_yet_comes_to_nobody(emulator):
    """The disk is full: were the emulator killed now, a node would hold what no record tells of. With room it comes."""
    module, book = emulator.module("a"), emulator.directory / "qcs" / "journal.jsonl"
    unrecorded: list[Block] = []
    module.on_block = lambda block: (
        None if f'"sequence":{block.sequence},' in book.read_text() else unrecorded.append(block)
    )
    emulator.start()
    until(lambda: module.blocks)
    full = book.stat().st_size + 1000
    resource.prlimit(emulator.process.pid, resource.RLIMIT_FSIZE, (full, resource.RLIM_INFINITY))
    until(lambda: book.stat().st_size == full)
    n_blocks = len(module.blocks)
    resource.prlimit(emulator.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    until(lambda: len(module.blocks) > n_blocks + 3)

    assert unrecorded == []
    assert [block.sequence for block in module.blocks] == list(range(len(module.blocks)))


def test_block_that_was_sent_is_not_told_to_be_lost(emulator):
    """The end may have it, though it never says so; of those behind it the oldest go, and for this end only."""
    a, _ = emulator.module("a"), emulator.module("b")
    a.silent = True
    emulator.start(low=1 << 20, high=1 << 20)

    until(lambda: len(events(emulator, "block_lost")) >= 3)

    lost = events(emulator, "block_lost")[:3]
    assert [(e["sequence"], e["end"], e["epoch"]) for e in lost] == [(n, "a", a.blocks[0].epoch) for n in (1, 2, 3)]
    assert [block.sequence for block in a.blocks] == [0]


def test_journal_ends_with_what_may_not_have_come(emulator):
    """For each end the oldest block that it has not said to have."""
    a = emulator.module("a")
    emulator.start()
    until(lambda: len(a.blocks) >= 3)
    emulator.process.stop()

    (stopped,) = events(emulator, "stopped")
    assert [QC, a.blocks[0].epoch, "b", 0] in stopped["waiting"]
    assert all(row[2] == "b" or row[3] >= len(a.blocks) - 1 for row in stopped["waiting"])


@pytest.mark.parametrize(
    ("change", "said"),
    [({"low": -1}, r"qcs\[0\].low"), ({"low": 50, "high": 40}, r"qcs\[0\].high"), ({"slot_s": 0}, "slot_s")],
)
def test_malformed_configuration_is_one_line(emulator, change, said):
    """Exit status 2, and the member is named."""
    path = emulator.write(**change)
    command = [sys.executable, "-P", "-m", "testbed.quantum.qc_emulator", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert re.search(said, done.stderr)
