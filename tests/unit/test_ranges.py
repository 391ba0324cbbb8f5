"""Laws of allocation: no byte twice, nothing that an end lacks, all or nothing, and the shortage named."""

from hypothesis import given
from hypothesis import strategies as st

from etsi.secret import Secret
from node.pads import otp
from node.ranges import Range, Shortage, Stream, allocate, promised_slots

OFFSET = st.integers(0, 500)
EPOCH = st.sampled_from((1, 1, 1, 2))
STREAMS = st.fixed_dictionaries(
    {
        qc: st.builds(Stream, OFFSET, OFFSET, OFFSET, OFFSET, EPOCH, EPOCH, st.dictionaries(EPOCH, OFFSET))
        for qc in ("q1", "q2", "q3")
    }
)
NEEDS = st.lists(st.integers(1, 300), min_size=1, max_size=3).map(
    lambda sizes: list(zip(("q1", "q2", "q3"), sizes, strict=False))
)


@given(STREAMS, st.lists(NEEDS, max_size=12))
def test_no_byte_is_allocated_twice_and_none_that_an_end_lacks(streams, requests):
    """Whatever is asked in whatever order: ranges are disjoint, behind both floors, before both heads, of one epoch."""
    seen: set[tuple[str, int]] = set()
    for needs in requests:
        result = allocate(streams, needs)
        if isinstance(result, Shortage):
            continue
        streams, ranges = result
        for r in ranges:
            stream = streams[r.qc]
            assert max(stream.floor_a, stream.floor_b) <= r.start
            assert r.end <= min(stream.head_a, stream.head_b)
            assert r.epoch == stream.epoch_a == stream.epoch_b
            assert seen.isdisjoint((r.qc, i) for i in range(r.start, r.end))
            seen.update((r.qc, i) for i in range(r.start, r.end))


@given(STREAMS, NEEDS)
def test_a_refusal_names_the_tightest_qc_and_its_lack(streams, needs):
    """With exactly the missing bytes more on that QC, it would not be the one that is short."""
    result = allocate(streams, needs)

    if isinstance(result, Shortage):
        lacks = {qc: n - streams[qc].available for qc, n in needs}
        assert result.short_bytes == max(lacks.values()) == lacks[result.qc] > 0
    else:
        assert all(n <= streams[qc].available for qc, n in needs)


def test_no_byte_is_allocated_twice_though_both_ends_come_back_to_an_epoch():
    """Its tail is remembered."""
    stream = Stream()
    given = []
    for epoch in (1, 2, 1):
        for by_a in (True, False):
            stream = stream.reported(by_a=by_a, epoch=epoch, head=100, floor=0)
        after, ranges = allocate({"q": stream}, [("q", 10)])
        stream, given = after["q"], [*given, *ranges]

    assert given == [Range("q", 0, 10, 1), Range("q", 0, 10, 2), Range("q", 10, 20, 1)]


def test_nothing_is_available_while_the_ends_are_in_different_epochs():
    """One of them has not heard yet that the device began anew."""
    stream = Stream().reported(by_a=True, epoch=1, head=100, floor=0).reported(by_a=False, epoch=2, head=100, floor=0)

    assert stream.available == 0


@given(st.binary(min_size=1, max_size=64), st.data())
def test_one_time_pad_decrypts_to_what_was_encrypted(plain, data):
    """The pad applied twice is the identity."""
    pad = Secret(data.draw(st.binary(min_size=len(plain), max_size=len(plain))))

    assert otp(otp(Secret(plain), pad), pad) == Secret(plain)


@given(st.integers(1, 1000))
def test_promised_material_has_a_slot_to_live(ttl_slots):
    """Unless the TTL is a single slot, in which nothing could be promised otherwise."""
    promised = promised_slots(ttl_slots)

    assert 1 <= promised <= ttl_slots
    assert promised < ttl_slots or ttl_slots == 1
