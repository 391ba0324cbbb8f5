"""Many clients at once, from both ends of a link: no key is handed out twice, and all pairs are equal."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.gs004_client import Application
from tests.support.gs014_client import Sae
from tests.support.waiting import until

KEYS_PER_REQUEST = 20
REQUESTS = 30
CLIENTS_PER_END = 4
KEYS_OF_ONE = 40


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


def by_skip(master: Sae, slave: Sae) -> list[str]:
    """Keys, in hexadecimal, that the one got and the other fetched by SKIP, which must be the same."""
    found = []
    for _ in range(KEYS_OF_ONE):
        given = master.call("GET", f"/key?remoteSystemID={slave.id}").body
        assert slave.call("GET", f"/key/{given['keyId']}?remoteSystemID={master.id}").body == given
        found.append(given["key"])
    return found


def by_014(master: Sae, slave: Sae) -> list[str]:
    """The same by GS QKD 014."""
    found = []
    for _ in range(KEYS_OF_ONE):
        given = master.get(slave.id)
        assert slave.fetch(master.id, *given.ids).keys == given.keys
        found += [key.hex() for key in given.keys.values()]
    return found


def by_004(first: tuple[Sae, int], second: tuple[Sae, int]) -> list[str]:
    """The same by a stream of GS QKD 004; each SAE with the port of its node."""
    one, other = (Application(sae.context, port) for sae, port in (first, second))
    ids = first[0].id, second[0].id
    opened = one.open(*ids)
    assert other.open(*ids, ksid=opened.ksid).status == 0
    found = []
    for index in range(KEYS_OF_ONE):
        chunk = one.get(opened.ksid, index)
        assert other.get(opened.ksid, index).key == chunk.key
        found.append(chunk.key.hex())
    one.hang_up()
    other.hang_up()
    return found


@pytest.mark.parametrize("hops", [1, 2])
def test_keys_that_leave_by_all_three_protocols_at_once_are_all_different(kmes, alice, bob, carol, hops):
    """For the same two SAEs, each of which asks first: what one protocol gave, no other one gives again."""
    there, node = (bob, "b") if hops == 1 else (carol, "c")
    ends = (alice, kmes.stack.stream_port("a")), (there, kmes.stack.stream_port(node))
    with ThreadPoolExecutor(6) as pool:
        asked = [
            pool.submit(by, one, other)
            for one, other in ((alice, there), (there, alice))
            for by in (by_skip, by_014)
        ] + [pool.submit(by_004, *ends), pool.submit(by_004, *reversed(ends))]
        found = [key for keys in asked for key in keys.result()]

    halves = Counter(half for key in found for half in (key[:32], key[32:]))
    assert len(found) == 6 * KEYS_OF_ONE
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
