"""The pool of keys made ahead."""

from __future__ import annotations

from documents.secret import Secret
from node.serving.pool import Pool

PLACE = "s", 16


def keys(*names: str) -> list[tuple[str, Secret]]:
    """Keys of those IDs."""
    return [(name, Secret(name.encode())) for name in names]


def test_oldest_key_goes_first_and_once():
    """In the order in which they were made."""
    pool = Pool()
    pool.put(PLACE, keys("a", "b"), made=1.0, qc="q")
    pool.put(PLACE, keys("c"), made=2.0, qc="q")

    assert [k for k, _ in pool.take(PLACE, 2, 0.5)] == ["a", "b"]
    assert pool.count(PLACE, 0.5) == 1


def test_fewer_keys_than_wanted_stay_where_they_are():
    """All or nothing."""
    pool = Pool()
    pool.put(PLACE, keys("a", "b"), made=1.0, qc="q")

    assert pool.take(PLACE, 3, 0.5) is None
    assert pool.count(PLACE, 0.5) == 2


def test_sessions_and_sizes_do_not_mix():
    """A key of another size or session is none of this request's."""
    pool = Pool()
    pool.put(PLACE, keys("a"), made=1.0, qc="q")

    assert pool.count(("s", 32), 0.5) == 0
    assert pool.count(("t", 16), 0.5) == 0


def test_levels_are_by_the_first_qc_of_the_path():
    """A session that has moved goes on with what it has."""
    pool = Pool()
    pool.put(PLACE, keys("a"), made=1.0, qc="q")
    pool.put(PLACE, keys("b", "c"), made=2.0, qc="r")

    assert pool.levels() == {"q": 1, "r": 2}
    assert [k for k, _ in pool.take(PLACE, 2, 0.5)] == ["a", "b"]


def test_key_that_is_too_old_is_erased():
    """What was made at that time or before is not handed out, and its bytes are gone."""
    pool = Pool()
    pooled = keys("a")
    pool.put(PLACE, pooled, made=10.0, qc="q")

    assert pool.count(PLACE, 9.9) == 1
    assert pool.count(PLACE, 10.0) == 0
    assert len(pooled[0][1]) == 0


def test_expiry_reaches_sessions_that_nobody_asks_for():
    """Once a slot."""
    pool = Pool()
    pooled = keys("a")
    pool.put(PLACE, pooled, made=10.0, qc="q")

    pool.expire(10.0)

    assert len(pooled[0][1]) == 0


def test_end_of_a_session_erases_its_keys_only():
    """Those of others wait on."""
    pool = Pool()
    mine, others = keys("a"), keys("b")
    pool.put(PLACE, mine, made=1.0, qc="q")
    pool.put(("t", 16), others, made=1.0, qc="q")
    pool.drop("s")

    assert len(mine[0][1]) == 0
    assert pool.count(("t", 16), 0.5) == 1
