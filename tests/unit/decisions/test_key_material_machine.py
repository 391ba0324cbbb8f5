"""The rules of key material, tried by a machine: three nodes in a chain, whatever is lost, late, different or crashes.

The nodes' stores are real files; the shared database is the rule of decisions/ranges.py that its SQL implements.
"""

import itertools
import random
import shutil
import tempfile
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from decisions.ranges import Claim, Range, Shortage, Stream, allocate
from documents.secret import Secret
from node.material.blocks import Block
from node.material.key_store import KeyStore
from node.material.key_stream import Missing

ENDS = {"a-b/1": ("a", "b"), "b-c/1": ("b", "c")}
SLOT_S = 2.0
QCS = st.sampled_from(sorted(ENDS))
NODES = st.sampled_from("abc")
EITHER = st.sampled_from((0, 1))
# Mostly small, so that ranges span blocks; some larger than the fragments in which the store seals what it holds.
SIZES = st.one_of(st.integers(1, 40), st.integers(0, 3), st.integers(1000, 2600))
# Of what is there, in percent: keys small and large, all of it, and more than there is.
SHARES = st.one_of(st.integers(1, 60), st.sampled_from((100, 101)))
AT_ONCE = st.lists(st.booleans(), min_size=3, max_size=3)

# What becomes of a slot's two blocks at their four ends; most slots are good ones, or no key would ever be made.
FATES = st.one_of(
    st.just(["reported"] * 4),
    st.lists(st.sampled_from(("reported", "reported", "arrives", "late", "lost")), min_size=4, max_size=4),
)

NEVER_CAME, HELD, USED, EXPIRED, DIFFERED = b"-HUXD"
KEY = Secret(bytes(32))


@dataclass
class Output:
    """All that a QC made in an epoch: its stream, and where in it each block begins, and when that was made."""

    epoch: int
    stream: bytearray = field(default_factory=bytearray)
    made: list[float] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)

    def make(self, qc: str, payload: bytes, now: float) -> Block:
        """The next block."""
        sequence = len(self.made)
        self.made.append(now)
        self.starts.append(len(self.stream))
        self.stream += payload
        return Block(qc, sequence, sequence, self.starts[-1], Secret(payload), epoch=self.epoch, made=now)

    def made_at(self, offset: int) -> float:
        """When the byte was made (empty blocks begin where the next one does)."""
        return self.made[bisect_right(self.starts, offset) - 1]


@dataclass
class End:
    """What one end of a QC should hold: a letter a byte of each epoch, the last of which is current, and the bytes."""

    states: dict[int, bytearray] = field(default_factory=dict)
    streams: dict[int, bytearray] = field(default_factory=dict)
    waiting: list[Block] = field(default_factory=list)  # on their way from the QC, in order

    @property
    def epoch(self) -> int:
        """The current one."""
        return next(reversed(self.states))

    def got(self, block: Block) -> bool:
        """A block came. False if it had come before, or is of an epoch that was left behind."""
        state = self.states.setdefault(block.epoch, bytearray())
        if block.epoch != self.epoch or block.offset < len(state):
            return False
        stream = self.streams.setdefault(block.epoch, bytearray())
        stream += bytes(block.offset - len(stream)) + block.payload.reveal()
        state += bytes([NEVER_CAME]) * (block.offset - len(state)) + bytes([HELD]) * len(block.payload)
        return True

    def count(self, letter: int) -> int:
        """Bytes of all epochs that fared so."""
        return sum(state.count(letter) for state in self.states.values())


@dataclass(frozen=True)
class Report:
    """What a node said to a server of the shared database that it holds."""

    node: str
    server: int
    number: int
    claims: list[Claim]


@dataclass(frozen=True)
class Database:
    """What a server of the shared database knows: the streams, and of each end the last report, and to which server."""

    streams: dict[str, Stream]
    said: dict[tuple[str, str], int]
    reported: dict[tuple[str, str], int]


@dataclass(frozen=True)
class Task:
    """Ranges that a node is to take in one go, of an allocation that a server made."""

    allocation: int
    server: int
    node: str
    ranges: list[Range]


def overlap(a: Range, b: Range) -> bool:
    """Whether they have a byte in common."""
    return (a.qc, a.epoch) == (b.qc, b.epoch) and a.start < b.end and b.start < a.end


class KeyMaterial(RuleBasedStateMachine):
    """Nodes a, b and c; QCs a-b/1 and b-c/1."""

    allocations = Bundle("allocations")  # tasks
    reports = Bundle("reports")  # on their way to the shared database

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.directories: dict[str, Path] = {}
        self.crashes = itertools.count(1)
        self.stores: dict[str, KeyStore] = {}
        self.time = 1000.0
        self.epochs = itertools.count(1)
        self.outputs: dict[str, list[Output]] = {qc: [Output(next(self.epochs))] for qc in ENDS}
        self.said = dict.fromkeys([(node, qc) for qc, nodes in ENDS.items() for node in nodes], 0)
        self.ends = {(node, qc): End() for qc, nodes in ENDS.items() for node in nodes}
        # Up to where the shared database knows what a node holds, as the node thinks.
        self.known: dict[str, dict[str, tuple[int, int]]] = {node: {} for node in "abc"}
        self.servers = itertools.count(1)
        self.server = next(self.servers)
        self.followed = dict.fromkeys("abc", 0)
        self.reported = dict.fromkeys(self.ends, 0)
        self.numbers = itertools.count(1)
        self.used: list[tuple[Range, int]] = []  # by either end, and in which allocation
        self.streams = {qc: Stream() for qc in ENDS}
        self.copy = Database({**self.streams}, {**self.said}, {**self.reported})
        self.random = random.Random(1)

    @initialize(ttl_slots=st.integers(1, 6), sizes=st.tuples(SIZES, SIZES))
    def begin(self, ttl_slots: int, sizes: tuple[int, int]) -> None:
        """All nodes start empty and see a good slot."""
        self.ttl_slots = ttl_slots
        for node in "abc":
            self.open(node, self.directory / node)
        self.slot_passes(list(sizes), 1, ["reported"] * 4)

    def open(self, node: str, directory: Path) -> None:
        """Start the node on what lies in `directory`."""
        directory.mkdir(exist_ok=True)
        self.directories[node] = directory
        self.stores[node] = KeyStore(
            directory / "local.db", directory / "node.key", ttl_slots=self.ttl_slots, slot_s=SLOT_S,
            clock=lambda: self.time,
        )  # fmt: skip
        # No power fails here; the fsyncs would take most of the test's time.
        self.stores[node]._db.execute("PRAGMA synchronous = OFF")

    def teardown(self) -> None:
        """Close everything."""
        for store in self.stores.values():
            store.close()
        shutil.rmtree(self.directory)

    # What QCs do

    @rule(qc=QCS, lost=st.tuples(st.booleans(), st.booleans()))
    def device_begins_anew(self, qc: str, lost: tuple[bool, bool]) -> None:
        """In a new epoch; what it had not delivered yet is lost, or still comes."""
        self.outputs[qc].append(Output(next(self.epochs)))
        for node, forgotten in zip(ENDS[qc], lost, strict=True):
            if forgotten:
                self.ends[node, qc].waiting.clear()

    @rule(seconds=st.floats(0.1, 5.0))
    def devices_are_silent(self, seconds: float) -> None:
        """Time passes all the same."""
        self.time += seconds

    @rule(qc=QCS, which=EITHER)
    def device_repeats_itself(self, qc: str, which: int) -> None:
        """A block that it made in an earlier epoch, if there was one, is refused."""
        if len(self.ends[ENDS[qc][which], qc].states) > 1:
            left = Output(next(iter(self.ends[ENDS[qc][which], qc].states)))
            left.stream += bytes(1 << 20)
            assert not self.stores[ENDS[qc][which]].store(left.make(qc, bytes(8), self.time), b"")

    @rule(qc=QCS, n_bytes=st.integers(1, 40), lack=st.sampled_from((0, 0, 1)), reported=st.booleans())
    def ends_get_different_blocks(self, qc: str, n_bytes: int, lack: int, reported: bool) -> None:
        """Of the same place, by a fault of the device: other bytes, or not as many."""
        block = self.outputs[qc][-1].make(qc, self.random.randbytes(n_bytes), self.time)
        other = Secret(bytes(b ^ 1 for b in block.payload.reveal())[lack:])
        for node, sent in zip(ENDS[qc], (block, replace(block, payload=other)), strict=True):
            self.ends[node, qc].waiting.append(sent)
            while reported and self.ends[node, qc].waiting:
                self.deliver(node, qc)
            if reported:
                self.report_arrives(self.report_leaves(node))

    @rule(slots=st.lists(st.tuples(SIZES, SIZES, FATES), min_size=1, max_size=3), pause=st.sampled_from((1, 1, 1, 2)))
    def slots_pass(self, slots: list[tuple[int, int, list[str]]], pause: int) -> None:
        """Some slots, with or without one left out between."""
        for *sizes, fates in slots:
            self.slot_passes(sizes, pause, fates)

    def slot_passes(self, sizes: list[int], slots_later: int, fates: list[str]) -> None:
        """Each QC makes a block, which fares differently on its way to either end."""
        self.time += SLOT_S * slots_later
        made = zip(ENDS, sizes, strict=True)
        blocks = [self.outputs[qc][-1].make(qc, self.random.randbytes(n), self.time) for qc, n in made]
        ends = [(node, block) for block in blocks for node in ENDS[block.qc]]
        for (node, block), fate in zip(ends, fates, strict=True):
            waiting = self.ends[node, block.qc].waiting
            if fate != "lost":
                waiting.append(block)
            while fate in ("arrives", "reported") and waiting:
                self.deliver(node, block.qc)
            if fate == "reported":
                self.report_arrives(self.report_leaves(node))

    @rule(qc=QCS, which=EITHER, acknowledged=st.booleans())
    def block_arrives(self, qc: str, which: int, acknowledged: bool) -> None:
        """The oldest one on its way; it comes again if its acknowledgement is lost."""
        node = ENDS[qc][which]
        if self.ends[node, qc].waiting:
            self.deliver(node, qc, acknowledged=acknowledged)

    def deliver(self, node: str, qc: str, *, acknowledged: bool = True) -> None:
        """The oldest block on its way reaches the store."""
        end = self.ends[node, qc]
        block = end.waiting[0]
        new = end.got(block)
        if new or len(block.payload):  # an empty block may count as new each time: it changes nothing
            assert self.stores[node].store(block, block.digest(KEY)) is new
        else:
            self.stores[node].store(block, block.digest(KEY))
        if acknowledged:
            end.waiting.pop(0)

    # What nodes do

    @rule(target=reports, node=NODES)
    def report_leaves(self, node: str) -> Report:
        """A node says what it holds; the report may arrive later than newer ones, or never."""
        if self.followed[node] != self.server:
            self.followed[node] = self.server
            self.stores[node].follow(str(self.server))
        number = self.stores[node].number_report()
        return Report(node, self.server, number, self.stores[node].claims(self.known[node]))

    @rule()
    def database_is_copied(self) -> None:
        """What would be put back after a failure, or was on a standby that is behind."""
        self.copy = Database({**self.streams}, {**self.said}, {**self.reported})

    @rule(lost=st.booleans())
    def another_server_takes_over(self, lost: bool) -> None:
        """It knows all that was committed, or what was copied."""
        self.server = next(self.servers)
        if lost:
            self.streams, self.said = {**self.copy.streams}, {**self.copy.said}
            self.reported = {**self.copy.reported}

    @rule(report=consumes(reports))
    def report_arrives(self, report: Report) -> None:
        """One that was overtaken counts for nothing, as in qkd_report; the node hears what differs."""
        node = report.node
        if report.server != self.server:
            return
        for claim in report.claims:
            if self.said[node, claim.qc] < report.number:
                self.said[node, claim.qc], self.reported[node, claim.qc] = report.number, report.server
                by_a = node == ENDS[claim.qc][0]
                stream = self.streams[claim.qc] = self.streams[claim.qc].reported(claim, by_a=by_a)
                end = stream.a if by_a else stream.b
                self.known[node][claim.qc] = claim.epoch, stream.known(end)
                for mark in end.differing:
                    self.differ(node, Range(claim.qc, mark.start, mark.end, claim.epoch))

    def differ(self, node: str, r: Range) -> None:
        """A node is told, perhaps again, that a block is another one at the other end."""
        if self.stores[node].discard(r):
            state = self.ends[node, r.qc].states[r.epoch]
            state[r.start : r.end] = state[r.start : r.end].replace(bytes([HELD]), bytes([DIFFERED]))

    @precondition(lambda self: any(stream.available for stream in self.streams.values()))
    @rule(target=allocations, qc=QCS, share=SHARES, at_once=AT_ONCE)
    def key_on_one_qc(self, qc: str, share: int, at_once: list[bool]):
        """Either end may ask: the shared database answers both alike."""
        return self.allocate([(qc, self.part(share, qc))], at_once)

    @precondition(lambda self: all(stream.available for stream in self.streams.values()))
    @rule(target=allocations, share=SHARES, extra=st.integers(0, 30), at_once=AT_ONCE)
    def key_along_the_path(self, share: int, extra: int, at_once: list[bool]):
        """From a to c, on both QCs or on none."""
        n_bytes = self.part(share, *ENDS)
        return self.allocate([("a-b/1", n_bytes + extra), ("b-c/1", n_bytes)], at_once)

    @precondition(lambda self: any(stream.available for stream in self.streams.values()))
    @rule(target=allocations, qc=QCS, share=SHARES, at_once=AT_ONCE, reports=st.lists(NODES, max_size=3))
    def key_whose_commit_is_lost(self, qc: str, share: int, at_once: list[bool], reports: list[str]):
        """The server fails as soon as it has answered; its successor is asked for the same bytes."""
        self.database_is_copied()
        lost = self.allocate([(qc, self.part(share, qc))], at_once)
        self.another_server_takes_over(lost=True)
        for node in reports:
            self.report_arrives(self.report_leaves(node))
        again = self.allocate([(qc, self.part(share, qc))], at_once[::-1])
        return multiple(*lost.values, *again.values)

    def part(self, share: int, *qcs: str) -> int:
        """So many percent of what is there, and a byte at least."""
        return -(-min(self.streams[qc].available for qc in qcs) * share // 100) or 1

    def allocate(self, needs: list[tuple[str, int]], at_once: list[bool]):
        """What each node on the way is to take, which some do at once; nothing if a QC is short."""
        if any(self.reported[node, qc] != self.server for qc, _ in needs for node in ENDS[qc]):
            return multiple()
        before = self.streams
        result = allocate(before, needs)
        if isinstance(result, Shortage):
            return multiple()
        self.streams, ranges = {**before, **result[0]}, result[1]
        for r in ranges:
            # Tails only grow, so ranges that begin at or behind the tail of before never overlap.
            assert before[r.qc].tails.get(r.epoch, 0) <= r.start < r.end == self.streams[r.qc].tails[r.epoch]
            ends = [self.ends[node, r.qc] for node in ENDS[r.qc]]
            assert ends[0].streams[r.epoch][r.start : r.end] == ends[1].streams[r.epoch][r.start : r.end]
            for node in ENDS[r.qc]:
                # The report it was promised on may be old, so it can be expired by now. But it did come, and is unused.
                promised = self.ends[node, r.qc].states[r.epoch][r.start : r.end]
                assert len(promised) == len(r)
                assert set(promised) <= {HELD, EXPIRED}
        nodes = sorted({node for r in ranges for node in ENDS[r.qc]})
        number = next(self.numbers)
        tasks = [Task(number, self.server, node, [r for r in ranges if node in ENDS[r.qc]]) for node in nodes]
        for task, now in zip(tasks, at_once, strict=False):
            if now:
                self.take(task)
        return multiple(*tasks)

    @rule(task=allocations)
    def take(self, task: Task) -> None:
        """One end takes what it was given: late, out of order or a second time, as it comes.

        No byte is of use to its two ends in different allocations, whatever servers forget.
        """
        if self.check_take(task.node, task.ranges, task.server):
            for r in task.ranges:
                assert not [of for used, of in self.used if overlap(r, used) and of != task.allocation]
            self.used += [(r, task.allocation) for r in task.ranges]

    @rule(task=consumes(allocations), qc=QCS, which=EITHER, data=st.data())
    def take_what_a_forgetful_database_gave(self, task: Task, qc: str, which: int, data: st.DataObject) -> None:
        """After a bad fail-over ranges may overlap earlier ones: still no byte leaves twice, and all or nothing."""
        tails = {self.outputs[qc][0].epoch: 0, **self.streams[qc].tails}
        epoch, tail = data.draw(st.sampled_from(sorted(tails.items())))
        start = data.draw(st.integers(0, max(0, tail - 1)))
        end = data.draw(st.integers(start, min(tail, start + 1500)))
        node = ENDS[qc][which]
        forged = Range(qc, start, end, epoch)
        own = [r for r in task.ranges if task.node == node and not overlap(r, forged)]
        self.check_take(node, [*own, forged], self.followed[node])

    def check_take(self, node: str, ranges: list[Range], server: int) -> bool:
        """Whether it succeeds: if and only if each byte is held, unused and young enough, and the server is followed.

        Then the bytes are those made.
        """
        possible = server == self.followed[node] and all(
            self.state(node, r) == bytes([HELD]) * len(r)
            and (not len(r) or self.live(self.output(r.qc, r.epoch).made_at(r.start)))
            for r in ranges
        )
        before = self.stores[node].held()
        try:
            secrets = self.stores[node].take(ranges, "", str(server or ""))
        except Missing:
            assert not possible
            assert self.stores[node].held() == before
            return False
        assert possible
        assert [s.reveal() for s in secrets] == [
            self.ends[node, r.qc].streams.get(r.epoch, b"")[r.start : r.end] for r in ranges
        ]
        for r in ranges:
            if len(r):
                self.ends[node, r.qc].states[r.epoch][r.start : r.end] = bytes([USED]) * len(r)
        return True

    def output(self, qc: str, epoch: int) -> Output:
        """What the QC made in that epoch."""
        return next(output for output in self.outputs[qc] if output.epoch == epoch)

    def state(self, node: str, r: Range) -> bytes:
        """What the node should hold of a range: a letter a byte."""
        return bytes(self.ends[node, r.qc].states.get(r.epoch, b"")[r.start : r.end])

    @rule(node=NODES)
    def expire(self, node: str) -> None:
        """Exactly what is too old and still there goes."""
        n_bytes = 0
        for qc, end in self.ends_of(node):
            for epoch, state in end.states.items():
                output = self.output(qc, epoch)
                live = [s for s, made in zip(output.starts, output.made, strict=True) if self.live(made)]
                first_live = min(min(live, default=len(state)), len(state))
                n_bytes += state[:first_live].count(HELD)
                state[:first_live] = state[:first_live].replace(bytes([HELD]), bytes([EXPIRED]))
        assert self.stores[node].expire() == n_bytes

    def live(self, made: float) -> bool:
        """Whether what was made then may still be used."""
        return made > self.time - self.ttl_slots * SLOT_S

    def ends_of(self, node: str) -> Iterator[tuple[str, End]]:
        """The node's ends of QCs."""
        return ((qc, end) for (at, qc), end in self.ends.items() if at == node)

    @rule(node=NODES, killed=st.booleans())
    def restart(self, node: str, killed: bool) -> None:
        """A node stops and starts again; one that is killed goes on with the files as they lay, nothing tidied up."""
        directory = self.directories[node]
        if killed:
            left_behind = self.directory / f"{node}{next(self.crashes)}"
            # Without local.db-shm, which SQLite's users share in memory.
            shutil.copytree(directory, left_behind, ignore=shutil.ignore_patterns("*-shm"))
            directory = left_behind
        self.stores.pop(node).close()
        self.open(node, directory)
        self.known[node].clear()
        self.followed[node] = 0

    # What must hold at any time

    @invariant()
    def every_byte_is_accounted_for(self) -> None:
        """At each end: generated = used + expired + differing + stored, each as the model counts it."""
        for node, store in self.stores.items():
            for h in store.held():
                end = self.ends[node, h.qc]
                assert (h.epoch, h.head) == (end.epoch, len(end.states[end.epoch]))
                assert (h.stored, h.used, h.expired) == (end.count(HELD), end.count(USED), end.count(EXPIRED))
                assert h.differing == end.count(DIFFERED)
                assert h.generated == h.used + h.expired + h.differing + h.stored

    @invariant()
    def only_what_is_held_is_promised(self) -> None:
        """Behind the floor nothing is missing, and nothing has fewer slots to live than it must."""
        for node, store in self.stores.items():
            for h in store.held():
                promised = self.ends[node, h.qc].states[h.epoch][h.floor : h.head]
                assert set(promised) <= {HELD, USED}
                if h.floor < h.head:
                    age_s = self.time - self.output(h.qc, h.epoch).made_at(h.floor)
                    assert age_s < max(0.5, self.ttl_slots - 1) * SLOT_S


TestKeyMaterial = KeyMaterial.TestCase
TestKeyMaterial.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
