"""Both planners, against small cases that can be worked out by hand, and against brute force."""

from __future__ import annotations

import collections
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decisions.calendar import first_shortage
from etsi.gs004 import QoS
from scenario.shape import Shape
from scenario.topology_description import Link, Node, Qc, Topology
from scenario.workload import Arrival
from testbed.experiments.planner.bounds import _demand, _paths, best_acceptance, offered
from testbed.experiments.planner.one_by_one import accepted_one_by_one, mean_prices
from testbed.planning.plan import SaePlan

RING = ("ab", "bc", "cd", "da")


def topology(links):
    nodes = sorted({n for link in links for n in link})
    return Topology(
        name="t", description="", nodes=tuple(Node(n, n, (0.0, 0.0)) for n in nodes),
        links=tuple(Link(a + b, a, b, None, Shape(0), Shape(0), (Qc(a + b, 1, 1),)) for a, b in links), saes=(),
        controller_at=nodes[0], database_at=nodes[0],
    )  # fmt: skip


def arrival(master, slave, at_s=0.0, length_s=1.0, interval_s=5.0):
    saes = [SaePlan(f"{node}-{at_s}", node, f"id-{node}", 1) for node in (master, slave)]
    return Arrival(at_s, *saes, length_s, QoS(128, interval_s))


def load(links, arriving, made, *, ttl_slots=3, mode="basic"):
    return offered(topology(links), arriving, made, mode=mode, keys_ahead=4, ttl_slots=ttl_slots)


def bound(links, arriving, made, *, ttl_slots=3, time_limit_s=60.0):
    return best_acceptance(load(links, arriving, made, ttl_slots=ttl_slots), time_limit_s=time_limit_s)


def one_by_one(links, arriving, made, *, ttl_slots=3, prices=None):
    return accepted_one_by_one(load(links, arriving, made, ttl_slots=ttl_slots), prices)


def test_all_are_accepted_where_there_is_enough():
    made = [("ab", 0.5, 48)]

    assert bound(["ab"], [arrival("a", "b") for _ in range(3)], made).best == 3


def test_no_more_than_the_bytes_last():
    assert bound(["ab"], [arrival("a", "b") for _ in range(3)], [("ab", 0.5, 47)]).best == 2


def test_bytes_older_than_the_ttl_serve_nobody():
    late = [arrival("a", "b", at_s=10.0)]

    assert bound(["ab"], late, [("ab", 7.5, 16)], ttl_slots=3).best == 1
    assert bound(["ab"], late, [("ab", 6.5, 16)], ttl_slots=3).best == 0
    assert bound(["ab"], late, [("ab", 11.5, 16)], ttl_slots=3).best == 0


def test_a_session_may_go_the_long_way_round():
    """In BASIC the two ways from a to b cost 16 bytes, or 32, 16 and 16."""
    made = [("ab", 0.0, 16), ("da", 0.0, 32), ("cd", 0.0, 16), ("bc", 0.0, 16)]

    assert bound(RING, [arrival("a", "b"), arrival("a", "b", at_s=0.1)], made).best == 2
    assert bound(RING, [arrival("a", "b") for _ in range(3)], made).best == 2


def test_one_that_costs_much_gives_way_to_two_that_cost_little():
    long = arrival("a", "c")
    short = [arrival("a", "b", at_s=0.1), arrival("b", "c", at_s=0.2)]
    made = [("ab", 0.0, 32), ("bc", 0.0, 16)]

    assert bound(["ab", "bc"], [long, *short], made).best == 2


def test_a_session_that_would_break_later_is_not_accepted():
    """Ten keys, bytes for nine of them."""
    made = [("ab", float(5 * i), 16) for i in range(9)]

    assert bound(["ab"], [arrival("a", "b", length_s=50.0)], made).best == 0
    assert bound(["ab"], [arrival("a", "b", length_s=45.0)], made).best == 1


def test_modes_cost_what_they_declare():
    """Two hops, four keys: BASIC 8 and 4 units, OTP 4 and 4, QKP (one shared key for four) 5 and 1."""
    session = arrival("a", "c", length_s=4.0, interval_s=1.0)
    totals = {}
    for mode in ("basic", "otp", "qkp"):
        demand = _demand(session, ["ab", "bc"], mode, 4, 1.0, double_at_last=False)
        by_qc = collections.Counter()
        for (qc, _), n_bytes in demand.items():
            by_qc[qc] += n_bytes
        totals[mode] = by_qc["ab"] // 16, by_qc["bc"] // 16

    assert totals == {"basic": (8, 4), "otp": (4, 4), "qkp": (5, 1)}


def test_either_end_may_pay_double():
    """Whichever has the bytes; but one of them has to."""
    session = arrival("a", "c")

    assert bound(["ab", "bc"], [session], [("ab", 0.0, 32), ("bc", 0.0, 16)]).best == 1
    assert bound(["ab", "bc"], [session], [("ab", 0.0, 16), ("bc", 0.0, 32)]).best == 1
    assert bound(["ab", "bc"], [session], [("ab", 0.0, 31), ("bc", 0.0, 31)]).best == 0


def test_without_a_search_sessions_may_be_split_between_paths():
    """Half of the bytes lie on each of two ways from a to c."""
    made = [(qc, 0.0, 16) for qc in RING]

    assert bound(RING, [arrival("a", "c")], made).best == 0
    assert bound(RING, [arrival("a", "c")], made, time_limit_s=None).best == 1


def test_nothing_offered_is_nothing_refused():
    assert bound(["ab"], [], []).percent == 100


moments = st.integers(0, 5)


@settings(max_examples=40, deadline=None)
@given(
    sessions=st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd"), moments), min_size=1, max_size=4),
    made=st.lists(st.tuples(st.sampled_from(RING), moments, st.sampled_from([16, 32, 48])), max_size=10),
)
def test_the_programme_finds_what_trying_everything_finds(sessions, made):
    """Every choice of paths is tried, and on each QC the oldest bytes serve first."""
    arriving = [arrival(a, b, at_s=float(t)) for a, b, t in sessions if a != b]
    ttl = 2
    around = {0: "ab", 1: "bc", 2: "cd", 3: "da"}

    def ways(session):
        start, end = "abcd".index(session.master.node), "abcd".index(session.slave.node)
        right = [around[i % 4] for i in range(start, start + (end - start) % 4)]
        left = [around[(i - 1) % 4] for i in range(start, start - (start - end) % 4, -1)]
        return [None, *itertools.product((right, left), (False, True))]

    def feasible(choice):
        demand = collections.Counter()
        for session, way in zip(arriving, choice, strict=True):
            if way is not None:
                qcs, at_last = way
                demand.update(_demand(session, qcs, "basic", 4, 1.0, double_at_last=at_last))
        stock = collections.Counter()
        for qc, at, n in made:
            stock[qc, at] += n
        for (qc, slot), needed in sorted(demand.items(), key=lambda entry: entry[0][1]):
            left = needed
            for old in range(slot - ttl, slot + 1):
                taken = min(left, stock[qc, old])
                stock[qc, old] -= taken
                left -= taken
            if left:
                return False
        return True

    choices = itertools.product(*map(ways, arriving))
    best = max(sum(way is not None for way in choice) for choice in choices if feasible(choice))

    blocks = [(q, float(t), n) for q, t, n in made]
    assert bound(RING, arriving, blocks, ttl_slots=ttl).best == best
    assert bound(RING, arriving, blocks, ttl_slots=ttl, time_limit_s=None).best >= best


def test_planner_of_a_mode_over_two_paths_takes_both_ways_round_a_ring():
    """A session needs key material of all four QCs; of three, there is none for it."""
    both = topology(RING)
    made = [(qc, 0.0, 16) for qc in RING]

    assert [sorted(qcs) for qcs in _paths(both, "a", "c", 2)] == [sorted(RING)]
    for there, accepted in ((made, 1), (made[:3], 0)):
        assert best_acceptance(load(RING, [arrival("a", "c")], there, mode="paths-2")).best == accepted


LONG_THEN_SHORT = [arrival("a", "c"), arrival("a", "b", at_s=0.1), arrival("b", "c", at_s=0.2)]
ENOUGH_FOR_EITHER = [("ab", 0.0, 32), ("bc", 0.0, 16)]


def test_one_by_one_whoever_comes_first_is_let_in():
    """The first session takes what two others could have had, which the planner that knows of them prefers."""
    assert one_by_one(["ab", "bc"], LONG_THEN_SHORT, ENOUGH_FOR_EITHER) == 1
    assert bound(["ab", "bc"], LONG_THEN_SHORT, ENOUGH_FOR_EITHER).best == 2


def test_one_by_one_under_prices_a_session_that_takes_what_is_worth_more_is_refused():
    """Here a key's bytes of either QC are worth half a session, so the first one would take one and a half."""
    prices = {"ab": [1 / 32], "bc": [1 / 32]}

    assert one_by_one(["ab", "bc"], LONG_THEN_SHORT, ENOUGH_FOR_EITHER, prices=prices) == 2


def test_one_by_one_a_session_goes_the_long_way_round_where_the_short_one_is_taken():
    made = [("ab", 0.0, 16), ("da", 0.0, 32), ("cd", 0.0, 16), ("bc", 0.0, 16)]

    assert one_by_one(RING, [arrival("a", "b"), arrival("a", "b", at_s=0.1)], made) == 2


def test_one_by_one_of_ways_that_cost_the_same_the_one_with_more_left_is_taken():
    """The first of two sessions from a to c leaves b to the second one, which has to go that way."""
    made = [("ab", 0.0, 32), ("bc", 0.0, 16), ("cd", 0.0, 320), ("da", 0.0, 320)]

    assert one_by_one(RING, [arrival("a", "c"), arrival("a", "b", at_s=0.1)], made) == 2


def test_one_by_one_nobody_is_let_in_whom_or_for_whom_another_would_break_later():
    """Bytes for nine keys, one every five seconds: not enough for ten, nor for two at a time."""
    made = [("ab", float(5 * i), 16) for i in range(9)]

    assert one_by_one(["ab"], [arrival("a", "b", length_s=50.0)], made) == 0
    assert one_by_one(["ab"], [arrival("a", "b", at_s=5.0, length_s=40.0), arrival("a", "b", length_s=10.0)], made) == 1
    assert one_by_one(["ab"], [arrival("a", "b", length_s=45.0), arrival("a", "b", at_s=40.0)], made) == 1


def test_prices_are_what_a_byte_more_is_worth():
    """Sixteen more would let in one session more; where there is enough they would let in nobody."""
    sessions = [arrival("a", "b") for _ in range(3)]

    assert bound(["ab"], sessions, [("ab", 0.0, 32)], time_limit_s=None).prices == {"ab": [pytest.approx(1 / 16)]}
    assert bound(["ab"], sessions, [("ab", 0.0, 64)], time_limit_s=None).prices == {"ab": [pytest.approx(0)]}


def test_mean_of_prices_counts_loads_that_have_none():
    assert mean_prices([{"ab": [1.0, 2.0]}, {}, {"ab": [2.0], "bc": [3.0]}]) == {"ab": [1.0, 2 / 3], "bc": [1.0]}


@settings(max_examples=60, deadline=None)
@given(
    sessions=st.lists(st.tuples(moments, st.integers(1, 12)), min_size=1, max_size=8),
    made=st.lists(st.tuples(moments, st.sampled_from([16, 32, 48])), max_size=8),
    ttl=st.integers(0, 3),
)
def test_one_by_one_on_one_qc_is_whom_a_play_forward_lets_in(sessions, made, ttl):
    """As `calendar` plays: the oldest bytes go first, and nobody goes short."""
    arriving = [arrival("a", "b", at_s=float(t), length_s=float(n), interval_s=2.0) for t, n in sessions]
    there = [sum(n for at, n in made if at == slot) for slot in range(-ttl, 20)]
    planned, accepted = [0] * 20, 0
    for session in arriving:
        own = _demand(session, ["ab"], "basic", 4, 1.0, double_at_last=False)
        wanted = [n + own["ab", slot] for slot, n in enumerate(planned)]
        if first_shortage(there, wanted, ttl + 1) is None:
            planned, accepted = wanted, accepted + 1

    blocks = [("ab", float(at), n) for at, n in made]
    assert one_by_one(["ab"], arriving, blocks, ttl_slots=ttl) == accepted
    assert accepted <= bound(["ab"], arriving, blocks, ttl_slots=ttl).best
