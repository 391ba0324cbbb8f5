"""The pool of keys made ahead."""

from __future__ import annotations

from etsi.secret import Secret
from node.pool import Pool

TTL = 15


def keys(*names: str) -> list[tuple[str, Secret]]:
    """Keys of those IDs."""
    return [(name, Secret(name.encode())) for name in names]


def test_oldest_key_goes_first_and_once():
    """In the order in which they were made."""
    pool = Pool()
    pool.put(("s", 16, "q"), keys("a", "b"), 1)
    pool.put(("s", 16, "q"), keys("c"), 2)

    assert [k for k, _ in pool.take(("s", 16, "q"), 2, 2, TTL)] == ["a", "b"]
    assert pool.count(("s", 16, "q"), 2, TTL) == 1


def test_fewer_keys_than_wanted_stay_where_they_are():
    """All or nothing."""
    pool = Pool()
    pool.put(("s", 16, "q"), keys("a", "b"), 1)

    assert pool.take(("s", 16, "q"), 3, 1, TTL) is None
    assert pool.count(("s", 16, "q"), 1, TTL) == 2


def test_sessions_and_sizes_do_not_mix():
    """A key of another size or session is none of this request's."""
    pool = Pool()
    pool.put(("s", 16, "q"), keys("a"), 1)

    assert pool.count(("s", 32, "q"), 1, TTL) == 0
    assert pool.count(("t", 16, "q"), 1, TTL) == 0


def test_keys_of_another_clock_do_not_mix():
    """A session that has moved counts its keys' age in slots of another QC, which have other numbers."""
    pool = Pool()
    pool.put(("s", 16, "q"), keys("a"), 100)
    pool.put(("s", 16, "r"), keys("b"), 1)

    assert [k for k, _ in pool.take(("s", 16, "r"), 1, 1, TTL)] == ["b"]
    assert pool.take(("s", 16, "r"), 1, 1, TTL) is None
    assert pool.levels() == {"q": 1, "r": 0}


def test_key_older_than_the_ttl_is_erased():
    """Up to the TTL it is handed out, one slot later it is not, and its bytes are gone."""
    pool = Pool()
    pooled = keys("a")
    pool.put(("s", 16, "q"), pooled, 10)

    assert pool.count(("s", 16, "q"), 10 + TTL, TTL) == 1
    assert pool.count(("s", 16, "q"), 11 + TTL, TTL) == 0
    assert len(pooled[0][1]) == 0


def test_expiry_reaches_sessions_that_nobody_asks_for():
    """Once a slot."""
    pool = Pool()
    pooled = keys("a")
    pool.put(("s", 16, "q"), pooled, 10)
    pool.expire("other", 99, TTL)
    assert len(pooled[0][1]) == 1

    pool.expire("q", 11 + TTL, TTL)

    assert len(pooled[0][1]) == 0


def test_end_of_a_session_erases_its_keys_only():
    """Those of others wait on."""
    pool = Pool()
    mine, others = keys("a"), keys("b")
    pool.put(("s", 16, "q"), mine, 1)
    pool.put(("t", 16, "q"), others, 1)
    pool.drop("s")

    assert len(mine[0][1]) == 0
    assert pool.count(("t", 16, "q"), 1, TTL) == 1
