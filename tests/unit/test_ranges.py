"""Laws of allocation: no byte twice, nothing that an end lacks, all or nothing, and the shortage named."""

from hypothesis import given
from hypothesis import strategies as st

from etsi.secret import Secret
from node.pads import otp
from node.ranges import Shortage, Stream, allocate, oldest_live_slot, oldest_promised_slot

OFFSET = st.integers(0, 500)
STREAMS = st.fixed_dictionaries(
    {qc: st.builds(Stream, OFFSET, OFFSET, OFFSET, OFFSET, OFFSET) for qc in ("q1", "q2", "q3")}
)
NEEDS = st.lists(st.integers(1, 300), min_size=1, max_size=3).map(
    lambda sizes: list(zip(("q1", "q2", "q3"), sizes, strict=False))
)


@given(STREAMS, st.lists(NEEDS, max_size=12))
def test_no_byte_is_allocated_twice_and_none_that_an_end_lacks(streams, requests):
    """Whatever is asked in whatever order: ranges are disjoint, behind both floors and before both heads."""
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


def test_ttl_counts_slots_from_the_one_a_byte_was_made_in():
    """With a TTL of 15, bytes of slot 1 live through slot 15."""
    assert oldest_live_slot(15, 15) == 1
    assert oldest_live_slot(16, 15) == 2


@given(st.binary(min_size=1, max_size=64), st.data())
def test_one_time_pad_decrypts_to_what_was_encrypted(plain, data):
    """The pad applied twice is the identity."""
    pad = Secret(data.draw(st.binary(min_size=len(plain), max_size=len(plain))))

    assert otp(otp(Secret(plain), pad), pad) == Secret(plain)


@given(st.integers(1, 10_000), st.integers(1, 1000))
def test_promised_material_has_a_slot_to_live(newest_slot, ttl_slots):
    """Unless the TTL is a single slot, in which nothing could be promised otherwise."""
    promised, live = oldest_promised_slot(newest_slot, ttl_slots), oldest_live_slot(newest_slot, ttl_slots)

    assert live <= promised <= newest_slot
    assert promised > live or ttl_slots == 1
