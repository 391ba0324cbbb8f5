"""Which QCs the controller sees, by what nodes show of them."""

from __future__ import annotations

import itertools

import pytest

from controller import limits
from controller.network.graph import Graph
from controller.network.nodes import Agent, Report
from decisions.admission import Need
from etsi import gs015


def show(graph: Graph, name: str, *links: tuple[str, str, str | None]) -> None:
    """What a node says of its links: ID, node at the other end, and the QC's name if it has one."""
    entries = [
        {
            "qkdl_id": key, "qkdl_type": gs015.PHYS, "qkdl_status": gs015.ACTIVE,
            "qkdl_remote": {"qkdn_id": peer.upper()}, "qkdl_local": {"qkdi_id": i},
        }
        for i, (key, peer, _) in enumerate(links)
    ]  # fmt: skip
    names = {i: qc for i, (_, _, qc) in enumerate(links) if qc is not None}
    document = {"qkdn_id": name.upper(), "qkd_links": {"qkd_link": entries}}
    graph.put(Agent(name, f"https://{name}"), document, names, extended=bool(names))


def ends(graph: Graph) -> dict[str, tuple[str, str]]:
    """The nodes that each QC joins."""
    return {qc: link.ends for qc, link in graph.links().items()}


SHOWN = {
    "a": ("1", "b", "ab"), "b": ("1", "a", "ab"),
    "c": ("2", "d", "ab"), "d": ("2", "c", "cd"),
}  # fmt: skip


@pytest.mark.parametrize("order", ["".join(order) for order in itertools.permutations("abcd")])
def test_node_that_gives_its_qc_the_name_of_anothers_has_it_go_by_its_id(order):
    """Whoever comes first: that of the others is there, and sessions go over it."""
    graph = Graph()
    for name in order:
        show(graph, name, SHOWN[name])

    assert ends(graph) == {"ab": ("a", "b"), "2": ("c", "d")}
    assert graph.topology().has_edge("a", "b", key="ab")


def test_name_on_which_both_ends_agree_stays_with_the_qc_that_has_it():
    """Two nodes in league do not take it from the others."""
    graph = Graph()
    for name in "abc":
        show(graph, name, SHOWN[name])
    show(graph, "d", ("2", "c", "ab"))
    show(graph, "a", SHOWN["a"])

    assert ends(graph) == {"ab": ("a", "b"), "2": ("c", "d")}


def test_name_that_one_end_alone_gives_counts():
    """The other one may know only the standard, which has no names."""
    graph = Graph()
    show(graph, "a", ("1", "b", None))
    show(graph, "b", ("1", "a", "ab"))

    assert ends(graph) == {"ab": ("a", "b")}


@pytest.fixture
def pair() -> Graph:
    """a and b with a QC between them, and c, in whose sessions it is used."""
    graph = Graph()
    for name in "ab":
        show(graph, name, SHOWN[name])
    show(graph, "c")
    return graph


def test_no_figure_counts_for_more_than_a_qc_can_make(pair):
    """Of an end, too: a slot of it is no slot of another QC's."""
    pair.report("a", 2, [Report("ab", 1 << 60, 1 << 60, 1 << 62)], since=0)

    (view,) = pair.views(["ab"], 15)

    assert view.generated_bytes == view.requested_bytes == 2 * limits.MAX_BYTES_A_SLOT


def test_ends_alone_say_for_how_many_slots_a_qc_was_measured(pair):
    """Or, to admission, it would have made little in many slots."""
    pair.report("a", 1, [Report("ab", 40, 0, 40)])
    pair.report("c", 1 << 62, [Report("ab", 0, 5, None)], since=0, needs=lambda: {"ab": Need(5, 5)})

    (view,) = pair.views(["ab"], 15)

    assert (view.generated_bytes, view.slots) == (40, 1)


# A key of 16 bytes every 5 s.
ONE_SESSION = Need(16 / 5, 16)


def claim(graph: Graph, slots: int, requested: int, need: Need, used: int = 0) -> int:
    """Bytes that count as asked of ab, which makes 40 a slot, if c claims so many in each of those slots."""
    for slot in range(1, slots + 1):
        for name in "ab":
            graph.report(name, slot, [Report("ab", 40, 0, 40, used)])
        graph.report("c", slot, [Report("ab", 0, requested, None)], needs=lambda: {"ab": need})
    (view,) = graph.views(["ab"], 16)
    return view.requested_bytes


def test_node_with_one_session_cannot_claim_that_a_qc_of_others_is_used_up(pair):
    """However long it repeats it, and though nobody knows what it asked: in 16 slots 4 keys, and one at the edge."""
    assert claim(pair, 40, 1 << 20, ONE_SESSION) <= 5 * 16


def test_overload_of_a_qc_of_others_counts_as_it_was_declared_though_nothing_was_given(pair):
    """Thirty sessions ask for more than twice of what the QC makes."""
    assert claim(pair, 40, 96, Need(30 * 16 / 5, 30 * 16)) == 16 * 96


def test_what_is_asked_beyond_what_was_declared_counts_as_far_as_bytes_went(pair):
    """Applications that know no sessions declare little and may ask for much."""
    assert claim(pair, 40, 100, ONE_SESSION, used=40) == 16 * 40
