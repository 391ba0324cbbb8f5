"""Which QCs are lit for a key session: by the mechanism, by what is to spare, and by the price of a path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decisions.admission import QcView, Refused, since_lit
from decisions.choice import BOTH, BYPASS, MECHANISMS, RELAY, OnDemand, choose, choose_or_light
from decisions.paths import Path, shortest

VIA_B = Path(("a", "b", "c"), ("ab/1", "bc/1"))
DIRECT = Path(("a", "c"), ("a~c/1",))
RATES = {"ab/1": 40.0, "bc/1": 40.0, "a~c/1": 100.0, "a~c/2": 100.0, "a~b/1": 100.0, "b~c/1": 100.0}


def on_demand(*names: str) -> dict[str, OnDemand]:
    """QCs such as "a~c/1": past b, if they join a and c."""
    found = {}
    for name in names:
        a, b = name[0], name[2]
        fibres = ("channel of ab", "channel of bc") if {a, b} == set("ac") else (f"channel of {a}{b}",)
        past = ("b",) if len(fibres) > 1 else ()
        found[name] = OnDemand(name, a, b, past, (f"module of {a}", f"module of {b}", *fibres))
    return found


SPARE = {f"module of {n}": 1 for n in "abc"} | {"channel of ab": 2, "channel of bc": 2}


def chosen(
    *dark: str, lit: Sequence[str] = ("ab/1", "bc/1"), mechanism: str = BOTH, full: Sequence[str] = (),
    free: dict[str, int] | None = None, need: float = 10.0,
) -> Path | Refused | None:  # fmt: skip
    """For a session from a to c that needs so many bytes a slot, with those QCs lit, dark, or full."""
    graph: nx.MultiGraph[str] = nx.MultiGraph()
    graph.add_nodes_from("abc")
    for qc in lit:
        graph.add_edge(qc[0], qc[2] if "~" in qc else qc[1], key=qc)

    def over(graph, order, allowed, most):
        candidates = order(shortest(graph, "a", "c", lambda qc: QcView(qc, 0, 0, 0, 15)))
        short = lambda path: next((Refused(qc, 16, 0) for qc in path.qcs if qc in full), None)  # noqa: E731
        return choose(candidates, short, lambda a, b: sorted(graph[a][b]), most=most, allowed=allowed)

    known = on_demand(*dark, *(qc for qc in lit if "~" in qc))
    return choose_or_light(
        over, graph, known, dark, free=SPARE if free is None else free, mechanism=mechanism, ends=("a", "c"), most=1,
        shares=lambda path: [need / RATES[qc] for qc in path.qcs],
    )  # fmt: skip


def test_nothing_is_lit_while_relays_over_qcs_of_fibres_will_do():
    """Whatever a bypass would make."""
    assert chosen("a~c/1") == VIA_B


def test_bypass_is_lit_where_relays_are_full():
    """Unless no module, or no channel, is to spare."""
    assert chosen("a~c/1", full=["ab/1"]) == DIRECT
    for what in ("module of a", "module of c", "channel of ab"):
        assert chosen("a~c/1", full=["ab/1"], free=SPARE | {what: 0}) == Refused("ab/1", 16, 0, (VIA_B.nodes,))


@pytest.mark.parametrize(("makes", "best"), [(67.0, DIRECT), (66.0, Path(("a", "b", "c"), ("a~b/1", "b~c/1")))])
def test_of_what_can_be_lit_that_is_which_takes_fewer_modules_and_channels_for_a_key(monkeypatch, makes, best):
    """A bypass takes four and two relays' QCs six, which make 100 bytes a slot each: two thirds of that are enough."""
    monkeypatch.setitem(RATES, "a~c/1", makes)

    assert chosen("a~b/1", "b~c/1", "a~c/1", lit=(), free=SPARE | {"module of b": 2}) == best


def test_mechanism_relay_never_goes_past_a_node():
    """Nor over a bypass that others had lit."""
    assert chosen("a~c/1", mechanism=RELAY) == VIA_B
    assert chosen(lit=["ab/1", "bc/1", "a~c/1"], mechanism=RELAY) == VIA_B


def test_mechanism_relay_lights_qcs_between_neighbours():
    """Where no QC is always lit."""
    assert chosen("a~b/1", "b~c/1", lit=(), mechanism=RELAY, free=SPARE | {"module of b": 2}) == Path(
        ("a", "b", "c"), ("a~b/1", "b~c/1")
    )


def test_path_that_needs_more_modules_of_a_node_than_it_has_is_none():
    """b would need one for each of its QCs."""
    assert chosen("a~b/1", "b~c/1", lit=(), mechanism=RELAY) is None


def test_mechanism_bypass_never_has_a_relay():
    """A key is refused rather than told to somebody."""
    assert chosen(mechanism=BYPASS) is None
    assert chosen("a~c/1", mechanism=BYPASS) == DIRECT


def test_lit_qc_is_taken_before_a_dark_one_beside_it():
    """Which is lit when the other one is short."""
    assert chosen("a~c/2", lit=["a~c/1"]) == DIRECT
    assert chosen("a~c/2", lit=["a~c/1"], full=["a~c/1"]) == Path(("a", "c"), ("a~c/2",))


def test_network_without_qcs_on_demand_goes_by_its_path_policy_alone():
    """As if there were no mechanisms."""
    assert {chosen(mechanism=mechanism) for mechanism in (RELAY, BOTH)} == {VIA_B}
    assert chosen(mechanism=BYPASS) is None


@given(
    free=st.fixed_dictionaries({what: st.integers(0, 2) for what in SPARE}),
    mechanism=st.sampled_from(sorted(MECHANISMS)),
    full=st.sets(st.sampled_from(sorted(RATES))),
    lit=st.sets(st.sampled_from(["ab/1", "bc/1", "a~c/1"])),
)
def test_what_is_lit_never_takes_more_than_there_is(free, mechanism, full, lit):
    """Of anything."""
    dark = sorted({"a~b/1", "b~c/1", "a~c/1", "a~c/2"} - lit)

    found = chosen(*dark, lit=sorted(lit), mechanism=mechanism, full=sorted(full), free=free)

    if isinstance(found, Path):
        taken = Counter(what for qc in found.qcs if qc in dark for what in on_demand(qc)[qc].takes)
        assert all(number <= free[what] for what, number in taken.items())
        assert not set(found.qcs) & full


def test_qc_that_was_lit_only_lately_counts_as_if_it_had_made_its_mean_before():
    """What it made while it was lit counts as it was."""
    seen = since_lit(QcView("a~c/1", 999, 0, 7, 4, by_slot=[900, 50, 30, 19]), 40.0, 4, lit_slots=2)

    assert (list(seen.by_slot), seen.generated_bytes, seen.slots, seen.stored_bytes) == ([40, 40, 30, 19], 129, 4, 7)
    assert since_lit(QcView("a~c/1", 0, 0, 0, 0), 40.0, 3, lit_slots=0).generated_bytes == pytest.approx(120)
