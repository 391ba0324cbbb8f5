"""Requests of one kind at the same moment are served by one making of keys."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from documents.secret import Secret
from node.failures import RelayBroken, ShortOfMaterial, TooLate
from node.serving.batching import Keys, Together


class Maker:
    """Makes keys; the first call waits until `go`, so that others gather behind it."""

    def __init__(self, enough: int = 1000) -> None:
        self.calls: list[int] = []
        self.enough = enough
        self.go = threading.Event()
        self.began = threading.Event()

    def __call__(self, number: int) -> Keys:
        first = not self.calls
        self.calls.append(number)
        if first:
            self.began.set()
            assert self.go.wait(10)
        elif number > self.enough:
            raise ShortOfMaterial("too little", qc="q", short_bytes=number - self.enough)
        return [(f"{len(self.calls)}-{i}", Secret(b"k")) for i in range(number)]


def gather(together: Together, maker: Maker, numbers: list[int]) -> list[Keys | Exception]:
    """One caller, and when it is at work one for each of `numbers`; what they all got."""
    with ThreadPoolExecutor(len(numbers) + 1) as pool:
        calls = [pool.submit(together.make, "kind", 1, maker)]
        assert maker.began.wait(10)
        calls += [pool.submit(together.make, "kind", n, maker) for n in numbers]
        while len(together._queues["kind"]) < len(numbers):
            pass
        maker.go.set()
        return [call.exception(10) or call.result() for call in calls]


def test_those_who_come_while_keys_are_made_get_theirs_in_one_go():
    """Every caller gets as many as it asked for, and no key twice."""
    maker = Maker()
    got = gather(Together(most=64), maker, [1, 2, 3])

    assert maker.calls == [1, 6]
    assert [len(keys) for keys in got] == [1, 1, 2, 3]
    assert len({key_id for keys in got for key_id, _ in keys}) == 7


def test_no_more_are_made_in_one_go_than_the_most():
    """The rest are made in the next one."""
    maker = Maker()
    got = gather(Together(most=4), maker, [3, 2, 2])

    assert maker.calls[0] == 1
    assert sorted(maker.calls[1:]) in ([3, 4], [2, 2, 3])
    assert sorted(len(keys) for keys in got) == [1, 2, 2, 3]


def test_where_all_is_too_much_everyone_tries_alone():
    """A large request must not spoil the small ones beside it."""
    got = gather(Together(most=64), Maker(enough=3), [2, 9, 3])

    assert [len(keys) if isinstance(keys, list) else type(keys) for keys in got] == [1, 2, ShortOfMaterial, 3]


def test_failure_reaches_everyone_and_the_next_starts_afresh():
    """Nobody waits for ever for keys that cannot be made."""
    together = Together(most=64)
    broken = Maker()

    def fail(number: int) -> Keys:
        if broken.calls:
            raise RelayBroken("no", node="x")
        return broken(number)

    broken_calls = gather_with(together, broken, fail)

    assert [type(e) for e in broken_calls[1:]] == [RelayBroken, RelayBroken]
    broken.calls.clear()
    assert len(together.make("kind", 2, lambda n: [("k", Secret(b"k"))] * n)) == 2


def gather_with(together: Together, maker: Maker, make) -> list[object]:
    """A first caller that succeeds and two more that meet a failure."""
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(together.make, "kind", 1, make)]
        assert maker.began.wait(10)
        calls += [pool.submit(together.make, "kind", 1, make) for _ in range(2)]
        while len(together._queues["kind"]) < 2:
            pass
        maker.go.set()
        return [call.exception(10) or call.result() for call in calls]


def test_kinds_do_not_wait_for_one_another():
    """Another session's keys are made at the same time."""
    together, maker = Together(most=64), Maker()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(together.make, "slow", 1, maker)
        assert maker.began.wait(10)
        assert len(together.make("other", 1, lambda n: [("k", Secret(b"k"))] * n)) == 1
        maker.go.set()
        assert len(slow.result(10)) == 1


def test_single_failure_is_raised_as_it_is():
    """With nobody else in the group the caller sees what happened."""
    with pytest.raises(RelayBroken):
        Together(most=4).make("kind", 1, lambda _: (_ for _ in ()).throw(RelayBroken("no", node="x")))


def test_one_for_whom_it_is_too_late_makes_keys_for_nobody():
    """Those who came after it have more time: the next of them makes keys for the others."""
    maker, turns = Maker(), iter([None, TooLate(), None])

    def ready() -> None:
        failure = next(turns)
        if failure is not None:
            raise failure

    got = gather(Together(most=64, ready=ready), maker, [1, 2, 3])

    assert maker.calls == [1, 5]
    assert isinstance(got[1], TooLate)
    assert [len(keys) for keys in (got[0], *got[2:])] == [1, 2, 3]
