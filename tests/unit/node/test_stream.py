"""A chunk stream: the same chunk for both sides, none twice for one of them, and who makes it."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from node.streams.stream import MOST_OPEN, WINDOW, Do, Stream

A, B = "a", "b"


def joined() -> Stream:
    """A stream that both have opened."""
    stream = Stream(A, B)
    stream.connect(A)
    stream.connect(B)
    return stream


def make(stream: Stream, side: str, wanted: int = 0, now_s: float = 0.0) -> str:
    """The side makes a chunk; its key ID."""
    turn = stream.turn(side, wanted, now_s)
    assert turn.do is Do.MAKE
    key_id = f"key-{turn.index}"
    assert stream.made(side, turn.index, key_id, 0, now_s)
    return key_id


def test_first_who_asks_makes_and_the_other_fetches():
    """Either of them."""
    for first, second in ((A, B), (B, A)):
        stream = joined()
        key_id = make(stream, first)
        turn = stream.turn(second, 0, 0.5)
        assert (turn.do, turn.index, turn.key_id, turn.age_ms) == (Do.FETCH, 0, key_id, 500)


def test_client_that_always_asks_for_index_0_gets_one_chunk_after_the_other():
    """At both sides the same ones."""
    stream = joined()
    made = [make(stream, A) for _ in range(3)]
    fetched = []
    for _ in range(3):
        turn = stream.turn(B, 0, 0.0)
        fetched.append(turn.key_id)
        stream.fetched(B, turn.index)

    assert fetched == made == ["key-0", "key-1", "key-2"]


def test_index_may_be_asked_for_out_of_order():
    """And those before it later."""
    stream = joined()
    assert [make(stream, A, wanted) for wanted in (5, 2, 0, 0, 0, 0)] == [f"key-{i}" for i in (5, 2, 0, 1, 3, 4)]
    assert stream.turn(B, 5, 0.0).key_id == "key-5"


def test_side_waits_for_the_one_that_makes():
    """Until it has, or has failed: then it makes the chunk itself."""
    stream = joined()
    assert stream.turn(A, 0, 0.0).do is Do.MAKE
    assert stream.turn(B, 0, 0.0).do is Do.WAIT
    stream.failed(B, 0)  # it is not the one
    assert stream.turn(B, 0, 0.0).do is Do.WAIT
    stream.failed(A, 0)
    assert stream.turn(B, 0, 0.0).do is Do.MAKE
    assert not stream.made(A, 0, "late", 0, 0.0)
    assert stream.made(B, 0, "key-0", 0, 0.0)


def test_nobody_makes_a_chunk_before_the_peer_has_opened():
    """It would be dead before the peer could fetch it."""
    stream = Stream(A, B)
    stream.connect(A)

    assert stream.turn(A, 0, 0.0).do is Do.AWAIT_PEER


def test_closed_stream_gives_what_was_made_and_no_more():
    """Clause 6.1: no further keys; those not yet used are held until the peer closes."""
    stream = joined()
    make(stream, A)
    stream.close(A)

    assert stream.turn(A, 0, 0.0).do is Do.CLOSED
    assert stream.turn(B, 0, 0.0).do is Do.FETCH
    stream.fetched(B, 0)
    assert stream.turn(B, 0, 0.0).do is Do.CLOSED
    assert not stream.over
    stream.close(B)
    assert stream.over


def test_chunk_that_nobody_fetches_is_dead_for_both():
    """The other side gets the next one."""
    stream = joined()
    make(stream, A)
    stream.expire(20.0, life_s=18.0)

    turn = stream.turn(B, 0, 20.0)
    assert (turn.do, turn.index) == (Do.MAKE, 1)
    assert stream.turn(A, 0, 20.0).index == 1


def test_chunk_that_is_being_made_for_too_long_may_be_made_by_another():
    """Its maker is gone, perhaps."""
    stream = joined()
    assert stream.turn(A, 0, 0.0).do is Do.MAKE
    stream.expire(20.0, life_s=18.0)

    turn = stream.turn(B, 0, 20.0)
    assert (turn.do, turn.index) == (Do.MAKE, 0)
    assert not stream.made(A, 0, "late", 0, 20.0)


def test_side_that_runs_ahead_has_to_wait():
    """What one side may cost is bounded."""
    stream = joined()
    for _ in range(MOST_OPEN):
        make(stream, A)
    assert stream.turn(A, 0, 0.0).do is Do.WAIT_FOR_PEER_TO_CATCH_UP
    assert joined().turn(A, WINDOW, 0.0).do is Do.WAIT_FOR_PEER_TO_CATCH_UP


class TwoSides(RuleBasedStateMachine):
    """Two sides that ask, make, fail, fetch and let chunks expire in any order."""

    making = Bundle("making")

    def __init__(self) -> None:
        super().__init__()
        self.stream = joined()
        self.now = 0.0
        self.number = 0
        self.had: dict[str, dict[int, str]] = {A: {}, B: {}}

    @rule(target=making, side=st.sampled_from([A, B]), wanted=st.integers(0, 8))
    def ask(self, side: str, wanted: int) -> object:
        """A side asks; what it is to fetch it fetches at once, or cannot."""
        turn = self.stream.turn(side, wanted, self.now)
        assert turn.index not in self.had[side]
        if turn.do is Do.FETCH:
            self.had[side][turn.index] = turn.key_id
            self.stream.fetched(side, turn.index)
        return (side, turn.index) if turn.do is Do.MAKE else multiple()

    @rule(what=making, well=st.booleans())
    def end(self, what: tuple[str, int], well: bool) -> None:
        """A side that was to make a chunk has, or has not."""
        side, index = what
        self.number += 1
        if not well:
            self.stream.failed(side, index)
        elif self.stream.made(side, index, f"key-{self.number}", 0, self.now):
            assert index not in self.had[side]
            self.had[side][index] = f"key-{self.number}"

    @rule(seconds=st.floats(0, 12))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        self.stream.expire(self.now, life_s=18.0)

    @invariant()
    def both_have_the_same_and_no_key_twice(self) -> None:
        """Under each index, and no key stands under two."""
        for index in self.had[A].keys() & self.had[B].keys():
            assert self.had[A][index] == self.had[B][index]
        for had in self.had.values():
            assert len(set(had.values())) == len(had)


TestTwoSides = TwoSides.TestCase
TestTwoSides.settings = settings(max_examples=100, stateful_step_count=40)
