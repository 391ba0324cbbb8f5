"""The rules of key material, tried by a machine: three nodes in a chain, whatever is lost, repeated, late or crashes.

The nodes' stores are real files; the shared database is the rule of node/ranges.py that its SQL implements.
"""

import itertools
import random
import shutil
import tempfile
from bisect import bisect_right
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

from etsi.secret import Secret
from node.blocks import Block
from node.key_stream import Held, KeyStore, Missing
from node.ranges import Range, Shortage, Stream, allocate

ENDS = {"a-b/1": ("a", "b"), "b-c/1": ("b", "c")}
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

NEVER_CAME, HELD, USED, EXPIRED = b"-HUX"


@dataclass
class Output:
    """All that a QC ever made: its stream, and where in it each slot began."""

    stream: bytearray = field(default_factory=bytearray)
    slots: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)

    def make(self, qc: str, payload: bytes, slots_later: int) -> Block:
        """The next block."""
        sequence = len(self.slots)
        self.slots.append((self.slots[-1] if self.slots else 0) + slots_later)
        self.starts.append(len(self.stream))
        self.stream += payload
        return Block(qc, sequence, self.slots[-1], self.starts[-1], Secret(payload))

    def slot_of(self, offset: int) -> int:
        """The slot that the byte was made in (empty blocks begin where the next one does)."""
        return self.slots[bisect_right(self.starts, offset) - 1]


@dataclass
class End:
    """What one end of a QC should hold: a letter a byte of the stream, and the newest slot that it heard of."""

    state: bytearray = field(default_factory=bytearray)
    slot: int = 0
    waiting: list[Block] = field(default_factory=list)  # on their way from the QC, in order

    def got(self, block: Block) -> bool:
        """A block came. False if it had come before."""
        if block.offset < len(self.state) or block.slot < self.slot:
            return False
        self.state += bytes([NEVER_CAME]) * (block.offset - len(self.state)) + bytes([HELD]) * len(block.payload)
        self.slot = block.slot
        return True


class KeyMaterial(RuleBasedStateMachine):
    """Nodes a, b and c; QCs a-b/1 and b-c/1."""

    allocations = Bundle("allocations")  # (node, the ranges that it is to take in one go)
    reports = Bundle("reports")  # (node, what it held), on their way to the shared database

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.directories: dict[str, Path] = {}
        self.crashes = itertools.count(1)
        self.stores: dict[str, KeyStore] = {}
        self.outputs = {qc: Output() for qc in ENDS}
        self.ends = {(node, qc): End() for qc, nodes in ENDS.items() for node in nodes}
        self.streams = {qc: Stream() for qc in ENDS}
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
        self.stores[node] = KeyStore(directory / "local.db", directory / "node.key", ttl_slots=self.ttl_slots)
        # No power fails here; the fsyncs would take most of the test's time.
        self.stores[node]._db.execute("PRAGMA synchronous = OFF")

    def teardown(self) -> None:
        """Close everything."""
        for store in self.stores.values():
            store.close()
        shutil.rmtree(self.directory)

    # What QCs do

    @rule(slots=st.lists(st.tuples(SIZES, SIZES, FATES), min_size=1, max_size=3), pause=st.sampled_from((1, 1, 1, 2)))
    def slots_pass(self, slots: list[tuple[int, int, list[str]]], pause: int) -> None:
        """Some slots, with or without one left out between."""
        for *sizes, fates in slots:
            self.slot_passes(sizes, pause, fates)

    def slot_passes(self, sizes: list[int], slots_later: int, fates: list[str]) -> None:
        """Each QC makes a block, which fares differently on its way to either end."""
        made = zip(ENDS, sizes, strict=True)
        blocks = [self.outputs[qc].make(qc, self.random.randbytes(n), slots_later) for qc, n in made]
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
            assert self.stores[node].store(block) is new
        else:
            self.stores[node].store(block)
        if acknowledged:
            end.waiting.pop(0)

    # What nodes do

    @rule(target=reports, node=NODES)
    def report_leaves(self, node: str) -> tuple[str, list[Held]]:
        """A node says what it holds; the report may arrive later than newer ones, or never."""
        return node, self.stores[node].held()

    @rule(report=consumes(reports))
    def report_arrives(self, report: tuple[str, list[Held]]) -> None:
        """The greatest head and floor win, as in qkd_report."""
        node, held = report
        for h in held:
            stream = self.streams[h.qc]
            if node == ENDS[h.qc][0]:
                after = replace(stream, head_a=max(stream.head_a, h.head), floor_a=max(stream.floor_a, h.floor))
            else:
                after = replace(stream, head_b=max(stream.head_b, h.head), floor_b=max(stream.floor_b, h.floor))
            self.streams[h.qc] = after

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

    def part(self, share: int, *qcs: str) -> int:
        """So many percent of what is there, and a byte at least."""
        return -(-min(self.streams[qc].available for qc in qcs) * share // 100) or 1

    def allocate(self, needs: list[tuple[str, int]], at_once: list[bool]):
        """What each node on the way is to take, which some do at once; nothing if a QC is short."""
        before = self.streams
        result = allocate(before, needs)
        if isinstance(result, Shortage):
            return multiple()
        self.streams, ranges = result
        for r in ranges:
            # Tails only grow, so ranges that begin at or behind the tail of before never overlap.
            assert before[r.qc].tail <= r.start < r.end == self.streams[r.qc].tail
            for node in ENDS[r.qc]:
                # The report it was promised on may be old, so it can be expired by now. But it did come, and is unused.
                promised = self.ends[node, r.qc].state[r.start : r.end]
                assert len(promised) == len(r)
                assert set(promised) <= {HELD, EXPIRED}
        nodes = sorted({node for r in ranges for node in ENDS[r.qc]})
        allocations = [(node, [r for r in ranges if node in ENDS[r.qc]]) for node in nodes]
        for allocation, now in zip(allocations, at_once, strict=False):
            if now:
                self.check_take(*allocation)
        return multiple(*allocations)

    @rule(allocation=allocations)
    def take(self, allocation: tuple[str, list[Range]]) -> None:
        """One end takes what it was given: late, out of order or a second time, as it comes."""
        self.check_take(*allocation)

    @rule(allocation=consumes(allocations), qc=QCS, which=EITHER, data=st.data())
    def take_what_a_forgetful_database_gave(
        self, allocation: tuple[str, list[Range]], qc: str, which: int, data: st.DataObject
    ) -> None:
        """After a bad fail-over ranges may overlap earlier ones: still no byte leaves twice, and all or nothing."""
        tail = self.streams[qc].tail
        start = data.draw(st.integers(0, max(0, tail - 1)))
        end = data.draw(st.integers(start, min(tail, start + 1500)))
        node = ENDS[qc][which]
        own = [r for r in allocation[1] if allocation[0] == node and (r.qc != qc or r.end <= start or end <= r.start)]
        self.check_take(node, [*own, Range(qc, start, end)])

    def check_take(self, node: str, ranges: list[Range]) -> None:
        """It succeeds if and only if each byte is held, unused and young enough; then the bytes are those made."""
        possible = all(
            self.ends[node, r.qc].state[r.start : r.end] == bytes([HELD]) * len(r)
            and (not len(r) or self.outputs[r.qc].slot_of(r.start) > self.ends[node, r.qc].slot - self.ttl_slots)
            for r in ranges
        )
        before = self.stores[node].held()
        try:
            secrets = self.stores[node].take(ranges)
        except Missing:
            assert not possible
            assert self.stores[node].held() == before
            return
        assert possible
        assert [s.reveal() for s in secrets] == [self.outputs[r.qc].stream[r.start : r.end] for r in ranges]
        for r in ranges:
            self.ends[node, r.qc].state[r.start : r.end] = bytes([USED]) * len(r)

    @rule(qc=QCS, which=EITHER)
    def expire(self, qc: str, which: int) -> None:
        """Exactly what is too old and still there goes."""
        node = ENDS[qc][which]
        end, output = self.ends[node, qc], self.outputs[qc]
        old = [s for s, slot in zip(output.starts, output.slots, strict=True) if slot > end.slot - self.ttl_slots]
        first_live = min(min(old, default=len(end.state)), len(end.state))
        n_bytes = end.state[:first_live].count(HELD)
        end.state[:first_live] = end.state[:first_live].replace(bytes([HELD]), bytes([EXPIRED]))
        assert self.stores[node].expire(qc) == n_bytes

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

    # What must hold at any time

    @invariant()
    def every_byte_is_accounted_for(self) -> None:
        """At each end: generated = used + expired + stored, each as the model counts it."""
        for node, store in self.stores.items():
            for h in store.held():
                end = self.ends[node, h.qc]
                count = end.state.count
                assert (h.head, h.slot) == (len(end.state), end.slot)
                assert (h.stored, h.used, h.expired) == (count(HELD), count(USED), count(EXPIRED))
                assert h.generated == h.used + h.expired + h.stored

    @invariant()
    def only_what_is_held_is_promised(self) -> None:
        """Behind the floor nothing is missing, and nothing has fewer slots to live than it must."""
        for node, store in self.stores.items():
            for h in store.held():
                promised = self.ends[node, h.qc].state[h.floor : h.head]
                assert set(promised) <= {HELD, USED}
                if h.floor < h.head:
                    age = h.slot - self.outputs[h.qc].slot_of(h.floor)
                    assert age < max(1, self.ttl_slots - 1)


TestKeyMaterial = KeyMaterial.TestCase
TestKeyMaterial.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
