"""Which of several paths a key session takes."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import networkx as nx

from decisions.admission import Refused
from decisions.choice import BOTH, OnDemand, choose, choose_or_light
from decisions.paths import Path

SHORT = Path(("a", "b"), ("ab/1",))
LONG = Path(("a", "c", "b"), ("ac/1", "bc/1"))


def beside(a: str, b: str) -> list[str]:
    """Two QCs a fibre, but for one."""
    return [f"{a}{b}/1"] if (a, b) == ("c", "b") else [f"{a}{b}/1", f"{a}{b}/2"]


def admitting(*full: str):
    """Admission where those QCs have nothing left."""
    return lambda path: next((Refused(qc, 16, 0) for qc in path.qcs if qc in full), None)


def test_first_path_that_is_admitted_is_taken():
    """No candidate is looked at behind it."""
    assert choose(itertools.chain([SHORT], iter(lambda: 1 / 0, 0)), admitting(), beside, most=4) == SHORT
    assert choose([SHORT, LONG], admitting("ab/1", "ab/2"), beside, most=4) == LONG


def test_another_qc_of_the_same_fibre_takes_the_place_of_one_that_is_short():
    """Before another path is tried."""
    assert choose([SHORT, LONG], admitting("ab/1"), beside, most=4) == Path(("a", "b"), ("ab/2",))


def test_other_end_is_to_pay_double_where_the_first_one_cannot_if_the_candidate_says_so():
    """Before another path is tried; what is taken is for good."""
    at_last = Path(LONG.nodes, LONG.qcs, double_at_last=True)

    def admit(path: Path) -> Refused | None:
        return None if path.double_at_last else Refused("ac/1", 32, 16)

    assert choose([replace(LONG, either_end=True), SHORT], admit, lambda *_: (), most=1) == at_last
    assert choose([LONG], admit, lambda *_: (), most=1) == Refused("ac/1", 32, 16, (LONG.nodes,))
    assert choose([replace(at_last, either_end=True)], admitting(), beside, most=1) == at_last


def test_refusal_is_that_of_the_first_path_and_names_all_that_were_tried():
    """No more than so many."""
    full = admitting("ab/1", "ab/2", "ac/1", "ac/2")

    assert choose([SHORT, LONG], full, beside, most=4) == Refused("ab/1", 16, 0, (("a", "b"), ("a", "c", "b")))
    assert choose([SHORT, LONG], full, beside, most=1) == Refused("ab/1", 16, 0, (("a", "b"),))


def test_no_candidate_is_no_path():
    """Which is no refusal."""
    assert choose([], admitting(), beside, most=4) is None


def test_what_a_session_wanted_is_the_first_candidate_whatever_comes_of_it():
    """It is told once, before anything is admitted."""
    for admit, found in ((admitting(), SHORT), (admitting("ab/1", "ab/2"), LONG)):
        told: list[Path] = []
        assert choose([SHORT, LONG], admit, beside, most=4, wanted=told.append) == found
        assert told == [SHORT]


def test_what_is_always_lit_costs_nothing_though_nothing_is_known_to_come_of_it_yet():
    """As at the beginning: nothing is lit while relays will do."""
    lit: nx.MultiGraph = nx.MultiGraph()
    lit.add_edge("a", "c", key="ac/1")
    lit.add_edge("b", "c", key="bc/1")
    bypass = OnDemand("a~b/1", "a", "b", ("c",), ("module of a", "module of b"))

    found = choose_or_light(
        lambda _, order, allowed, most: choose(
            order([Path(("a", "b"), (bypass.qc,)), LONG]), admitting(), beside, most=most, allowed=allowed
        ),
        lit, {bypass.qc: bypass}, [bypass.qc], free={"module of a": 1, "module of b": 1}, mechanism=BOTH,
        ends=("a", "b"), most=4, shares=lambda path: [0.5 if qc == bypass.qc else math.inf for qc in path.qcs],
    )  # fmt: skip

    assert found == LONG
