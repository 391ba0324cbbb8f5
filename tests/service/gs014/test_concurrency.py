"""Many clients at once, from both ends of a link: no key is handed out twice, and all pairs are equal."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tests.support.gs014_client import Sae
from tests.support.waiting import until

KEYS_PER_REQUEST = 20
REQUESTS = 30
CLIENTS_PER_END = 4


def masters_turn(master: Sae, slave: Sae) -> list[tuple[str, str]]:
    """(Key ID, key) of everything that the master got and the slave fetched, which must be the same."""
    mine, theirs = master.dial(), slave.dial()
    found: list[tuple[str, str]] = []
    for _ in range(REQUESTS):
        given = master.post(slave.id, {"number": KEYS_PER_REQUEST}, over=mine)
        assert given.status == 200, given
        assert len(given.ids) == KEYS_PER_REQUEST
        assert slave.fetch(master.id, *given.ids, over=theirs).keys == given.keys
        found += [(key_id, key.hex()) for key_id, key in given.keys.items()]
    mine.close()
    theirs.close()
    return found


def test_thousands_of_keys_asked_for_from_both_ends_are_all_different(kmes, alice, adam, bob, mallory):
    """Four clients at each end of one QC, two SAEs each, in both directions at once."""
    until(lambda: alice.stored(bob.id) > KEYS_PER_REQUEST * REQUESTS * 2 * CLIENTS_PER_END)
    pairs = [(alice, bob), (bob, alice), (adam, mallory), (mallory, adam)] * (CLIENTS_PER_END // 2)
    with ThreadPoolExecutor(len(pairs)) as pool:
        found = list(itertools.chain.from_iterable(pool.map(lambda pair: masters_turn(*pair), pairs)))

    assert len(found) == KEYS_PER_REQUEST * REQUESTS * len(pairs) >= 4000
    assert max(Counter(key_id for key_id, _ in found).values()) == 1
    assert max(Counter(key for _, key in found).values()) == 1
    # Were bytes used twice at another offset, halves of keys would coincide.
    halves = Counter(half for _, key in found for half in (key[:32], key[32:]))
    assert max(halves.values()) == 1


def test_relayed_keys_asked_for_from_both_ends_are_all_different(kmes, alice, carol):
    """Over a trusted relay, where each direction begins with another link."""
    with ThreadPoolExecutor(2) as pool:
        found = list(
            itertools.chain.from_iterable(pool.map(lambda p: masters_turn(*p), [(alice, carol), (carol, alice)]))
        )

    assert len({key for _, key in found}) == len(found) == 2 * KEYS_PER_REQUEST * REQUESTS


def test_of_many_fetches_of_one_key_exactly_one_gets_it(alice, slave):
    """Whoever comes later is told that it is not there."""
    for _ in range(5):
        given = alice.get(slave.id, number=3)
        start = threading.Barrier(6)

        def fetch(_: int, given=given, start=start) -> int:
            start.wait()
            return slave.fetch(alice.id, *given.ids).status

        with ThreadPoolExecutor(6) as pool:
            assert Counter(pool.map(fetch, range(6))) == {200: 1, 400: 5}


def test_first_requests_of_a_pair_at_once_open_one_session(kmes, bob, carol):
    """Eight clients that nobody announced: one session for all of them, and all get keys."""
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: carol.get(bob.id), range(8)))

    assert [a.status for a in answers] == [200] * 8
    assert len({key for a in answers for key in a.keys.values()}) == 8
    sessions = [s for s in kmes.node("c")["sessions"] if (s["master_sae"], s["slave_sae"]) == (carol.id, bob.id)]
    assert len(sessions) == 1
