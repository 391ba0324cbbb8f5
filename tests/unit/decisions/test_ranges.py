"""Laws of allocation: no byte twice, nothing that an end lacks, all or nothing, and the shortage named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decisions.ranges import Claim, End, Mark, Range, Shortage, Stream, allocate, promised_slots, spare_slots
from documents.secret import Secret
from node.relaying.ciphers import otp

OFFSET = st.integers(0, 500)
EPOCH = st.sampled_from((1, 1, 1, 2))
ENDS = st.builds(End, EPOCH, OFFSET)
STREAMS = st.fixed_dictionaries(
    {
        qc: st.builds(Stream, ENDS, ENDS, st.just(1), OFFSET, OFFSET, st.dictionaries(EPOCH, OFFSET))
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
        streams, ranges = streams | result[0], result[1]
        for r in ranges:
            stream = streams[r.qc]
            assert max(stream.a.floor, stream.b.floor, stream.floor) <= r.start
            assert r.end <= stream.head
            assert r.epoch == stream.a.epoch == stream.b.epoch
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


def said(stream: Stream, end: str, *blocks: tuple[int, int, bytes], epoch: int = 1, floor: int = 0) -> Stream:
    """The stream after end "a" or "b" has said that it holds these blocks."""
    marks = [Mark(*block) for block in blocks]
    return stream.reported(Claim("q", epoch, floor, 0, marks), by_a=end == "a")


def test_no_byte_is_allocated_twice_though_both_ends_come_back_to_an_epoch():
    """Its tail is remembered."""
    stream = Stream()
    given = []
    for epoch in (1, 2, 1):
        for end in "ab":
            stream = said(stream, end, (0, 100, b"x"), epoch=epoch)
        after, ranges = allocate({"q": stream}, [("q", 10)])
        stream, given = after["q"], [*given, *ranges]

    assert given == [Range("q", 0, 10, 1), Range("q", 0, 10, 2), Range("q", 10, 20, 1)]


def test_nothing_is_available_while_the_ends_are_in_different_epochs():
    """One of them has not heard yet that the device began anew."""
    stream = said(said(Stream(), "a", (0, 100, b"x")), "b", (0, 100, b"x"))
    assert stream.available == 100

    assert said(stream, "a", (0, 100, b"x"), epoch=2).available == 0


def test_head_moves_over_what_both_ends_hold_alike():
    """Not before the second one has said so."""
    stream = said(Stream(), "a", (0, 10, b"x"), (10, 20, b"y"))
    assert stream.available == 0

    assert said(stream, "b", (0, 10, b"x")).available == 10


def test_floor_moves_behind_a_block_that_is_missing_at_one_end():
    """As soon as a later one agrees."""
    stream = said(Stream(), "a", (0, 10, b"x"), (10, 20, b"y"), (20, 30, b"z"))
    stream = said(stream, "b", (0, 10, b"x"), (20, 30, b"z"))

    assert (stream.first_free, stream.head) == (20, 30)


@pytest.mark.parametrize("other", [(10, 20, b"?"), (10, 18, b"y"), (8, 18, b"y")])
def test_block_that_differs_is_never_available_and_both_ends_are_told(other):
    """In bytes, length or place."""
    stream = said(Stream(), "a", (0, 8, b"x"), (10, 20, b"y"), (20, 30, b"z"))
    stream = said(stream, "b", (0, 8, b"x"), other, (20, 30, b"z"))

    assert stream.a.differing == {Mark(10, 20, b"y")}
    assert stream.b.differing == {Mark(*other)}
    assert (stream.first_free, stream.head) == (20, 30)


def test_end_that_has_erased_what_differs_is_told_no_more():
    """Its floor says so."""
    stream = said(said(Stream(), "a", (0, 8, b"x")), "b", (0, 8, b"y"))

    stream = said(stream, "a", floor=8)

    assert (stream.a.differing, stream.b.differing) == (frozenset(), {Mark(0, 8, b"y")})


def test_end_that_leaves_out_what_is_not_known_has_to_begin_further_back():
    """The server that knew it is not there any more."""
    before = said(Stream(), "a", (0, 8, b"x"))
    assert before.known(before.a) == 8

    stream = Stream().reported(Claim("q", 1, 0, 8, [Mark(8, 16, b"y")]), by_a=True)

    assert stream.known(stream.a) == 0


def test_marks_of_both_ends_go_when_they_are_settled():
    """Nothing grows with the length of a run."""
    stream = Stream()
    for start in range(0, 1000, 10):
        for end in "ab":
            stream = said(stream, end, (start, start + 10, b"x"))

    assert not stream.a.marks | stream.b.marks
    assert stream.available == 1000


@given(st.binary(min_size=1, max_size=64), st.data())
def test_one_time_pad_decrypts_to_what_was_encrypted(plain, data):
    """The pad applied twice is the identity."""
    pad = Secret(data.draw(st.binary(min_size=len(plain), max_size=len(plain))))

    assert otp(otp(Secret(plain), pad), pad) == Secret(plain)


@given(st.integers(1, 1000))
def test_what_is_promised_last_can_still_be_taken_by_all(ttl_slots):
    """The database promises by a report that is old, the master takes, the slave's node fetches: all within the TTL."""
    share = spare_slots(ttl_slots)
    promised = promised_slots(ttl_slots) + share
    taken = ttl_slots - share

    assert 0.5 <= promised_slots(ttl_slots) < promised < taken < ttl_slots
    assert taken + share <= ttl_slots + 1e-9
    assert share >= min(1 / 6, ttl_slots / 6)


def test_a_fifth_of_the_ttl_is_kept_back():
    """A slot at least, where the TTL has several."""
    assert [promised_slots(ttl) for ttl in (15, 5, 3, 2, 1)] == [12, 4, 2, 1, 0.5]
