"""QCs in virtual time beside those of real nodes: the same blocks, and so the same stock, and as many that generate."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from decisions.ranges import promised_slots
from documents.secret import Secret
from node.material.blocks import Block
from node.material.key_store import KeyStore
from node.material.key_stream import Held
from node.tree.performance import Performance
from simulation.qcs import Passive, QcState
from simulation.supply import Recorded

QC, EPOCH, DIGEST = "a-b/1", 7, bytes(16)
# By runs: so many slots with so many bytes each.
BLOCKS = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 3) | st.just(0)), min_size=1, max_size=8).map(
    lambda runs: [n_bytes for slots, n_bytes in runs for _ in range(slots)]
)


def recorded(n_bytes: list[int]) -> Recorded:
    """A block at the beginning of each second."""
    return Recorded([float(slot) for slot in range(len(n_bytes))], n_bytes)


@given(n_bytes=BLOCKS, ttl_slots=st.integers(1, 30), grace_s=st.sampled_from([0, 2]))
def test_qc_counts_as_one_that_generates_as_long_as_nodes_say_so(n_bytes, ttl_slots, grace_s):
    """And for the seconds of grace that the controller has; one that has brought nothing yet is waited for."""
    now, came = [0.0], [0]
    node = Performance(lambda: [Held(QC, 0, 0, 0, 0, came[0], 0, 0)], now=lambda: now[0])
    qc = QcState(QC, recorded(n_bytes), ttl_slots=ttl_slots, promised_slots=promised_slots(ttl_slots))
    passive, since_s = Passive({QC: qc}, ttl_slots, grace_s), None
    for slot, number in enumerate(n_bytes):
        now[0] = float(slot)
        came[0] += number
        node.block(QC, number, None)
        says = node.state(ttl_slots).qcs[QC].generates or not came[0]
        since_s = None if says else slot if since_s is None else since_s

        passive.look(float(slot))

        assert (QC in passive.qcs) is (since_s is not None and slot - since_s >= grace_s)


@settings(max_examples=30)
@example(n_bytes=[899, *[900] * 6, 199, 0], ttl_slots=600, takes=[0] * 7 + [1])  # what it leaves stays stored
@given(
    n_bytes=st.lists(st.integers(0, 900), min_size=1, max_size=40), ttl_slots=st.sampled_from([5, 15, 600]),
    takes=st.lists(st.integers(0, 400), max_size=40),
)  # fmt: skip
def test_stock_is_that_of_a_node_and_what_does_not_fit_expires_as_there(n_bytes, ttl_slots, takes):
    """What is promised to somebody new, what is stored, and what has expired, slot by slot, while some is taken."""
    most = 6000  # of which what is promised ends more than one fragment before the bound
    now = [1000.0]
    qc = QcState(
        QC, recorded(n_bytes), ttl_slots=ttl_slots, promised_slots=promised_slots(ttl_slots), stock_bytes=most
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(
        KeyStore(Path(folder) / "a", Path(folder) / "k", ttl_slots=ttl_slots, clock=lambda: now[0], stock_bytes=most)
    ) as store:  # fmt: skip
        store.follow("s")
        head = 0
        for slot, number in enumerate(n_bytes):
            now[0] = 1000.0 + slot
            store.store(Block(QC, slot, slot, head, Secret(bytes(number)), epoch=EPOCH, made=now[0]), DIGEST)
            head += number
            store.expire()
            (held,) = store.held()
            qc.at(float(slot))
            view = qc.view(float(slot), 1)

            assert qc.available == held.head - held.floor
            # A node erases whole fragments, of up to 1,024 bytes: what lies across the limit goes with what is beyond.
            assert 0 <= view.stored_bytes - held.stored < 1024
            if slot < len(takes) and 0 < takes[slot] <= qc.available:
                _, taken = qc.take(QC, takes[slot])
                assert taken.start >= held.floor
                store.take([taken.__class__(QC, taken.start, taken.end, EPOCH)], "request", "s")
        (held,) = store.held()
        assert held.expired == held.generated - held.used - held.stored
