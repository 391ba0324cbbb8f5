"""Which QCs a network could have on demand, and what a file must say for it."""

from __future__ import annotations

from typing import Any

import pytest

from scenario.qc_document import shipped
from scenario.quantum.decoy_bb84 import rate_bps
from scenario.topology_description import Field, Topology, TopologyError
from scenario.topology_document import build

OPTICS: dict[str, Any] = {"device": "gys", "insertion_db": 1.5}


def document(**changes: Any) -> dict[str, Any]:
    """A line a-b-c-d of 2 dB a fibre, with a shorter way from a to c that loses more, and a module to spare at a, c, d.
    """
    fibres = [("a", "b", 2.0), ("b", "c", 2.0), ("c", "d", 2.0), ("a", "e", 9.0), ("e", "c", 9.0)]
    modules = {"a": 3, "c": 4, "d": 2}
    return {
        "name": "line",
        "nodes": [{"name": n} | ({"modules": modules[n]} if n in modules else {}) for n in "abcde"],
        "links": [{"a": a, "b": b, "delay_ms": 1, "loss_db": loss} for a, b, loss in fibres],
        "saes": [{"name": "one", "node": "a"}, {"name": "two", "node": "c"}],
        "optics": OPTICS,
    } | changes


def built(**changes: Any) -> Topology:
    """The network."""
    return build(Field("line.yaml", "", document(**changes)))


def refusal(**changes: Any) -> str:
    """Why there is none."""
    with pytest.raises(TopologyError) as caught:
        built(**changes)
    return str(caught.value)


def test_qc_goes_the_way_of_least_loss_past_nodes_that_take_some_of_the_light():
    """And makes what the device makes over all of that loss."""
    found = {one.qc.name: one for one in built().switched}

    assert (found["a~c/1"].past, found["a~c/1"].fibres) == (("b",), ("a-b", "b-c"))
    assert found["a~d/1"].past == ("b", "c")
    assert [found[qc].loss_db for qc in ("a~c/1", "a~d/1")] == pytest.approx([2 + 1.5 + 2, 2 + 1.5 + 2 + 1.5 + 2])
    assert found["a~c/1"].qc.mean_bytes_per_slot == pytest.approx(rate_bps(shipped()["gys"], 5.5) / 8)


def test_it_goes_past_so_many_nodes_at_most():
    """More switches, more to go wrong."""
    assert {one.qc.name for one in built(optics=OPTICS | {"most_past": 1}).switched} == {"a~c/1"}


def test_only_nodes_with_a_module_to_spare_have_one():
    """b and e have none, whatever their QCs; c and d are neighbours, whose fibre has its QC."""
    assert {one.qc.name for one in built().switched} == {"a~c/1", "a~d/1"}


def test_what_is_to_spare_is_what_the_qcs_of_fibres_leave():
    """Of modules and of channels."""
    spare = dict(built(optics=OPTICS | {"channels": 3}).spare)

    assert (spare["module of a"], spare["module of c"], spare["module of d"]) == (1, 1, 1)
    assert (spare["channel of a-b"], "module of b" in spare) == (2, False)


def test_neighbours_whose_fibre_has_no_qc_can_have_one_on_demand():
    """It goes past nobody, so it is no bypass."""
    links = [link | {"qcs": []} for link in document()["links"]]

    found = {one.qc: one.past for one in built(links=links).on_demand()}

    assert found == {"a~c/1": ("b",), "a~d/1": ("b", "c"), "c~d/1": ()}


def test_two_nodes_can_have_several_beside_each_other_as_far_as_there_are_modules():
    """Each takes one of its own."""
    nodes = [node | {"modules": 4} for node in document()["nodes"]]

    found = [one.qc.name for one in built(nodes=nodes, optics=OPTICS | {"parallel": 5}).switched]

    assert [name for name in found if name.startswith("a~c")] == ["a~c/1"]
    assert [name for name in found if name.startswith("a~d")] == ["a~d/1", "a~d/2"]


def test_fibre_names_all_qcs_whose_light_goes_through_it():
    """Those that it loses when it is cut."""
    assert set(built().qcs_over("a-b")) == {"a-b/1", "a~c/1", "a~d/1"}


def test_length_of_a_fibre_gives_its_loss_where_none_is_said():
    """By the loss of the device's fibre."""
    links = [{**link, "length_km": 10} for link in document()["links"]]
    for link in links:
        del link["loss_db"]

    (found,) = [one for one in built(links=links).switched if one.qc.name == "a~c/1"]

    assert found.loss_db == pytest.approx(2 * 10 * shipped()["gys"].db_per_km + 1.5)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"optics": {"insertion_db": 1}}, "optics.device: missing, and it is required"),
        ({"optics": {"device": "gyz"}}, "optics.device: unknown device; did you mean 'gys'?"),
        ({"optics": OPTICS | {"channels": 0}}, "optics.channels: expected a number above 0"),
        ({"optics": OPTICS | {"setup_s": 60}}, "optics.setup_s: expected a plain number from 0 to 8, got 60"),
        ({"optics": OPTICS | {"insertion_db": 30}}, "optics: no QC can be lit: between no two nodes with a module"),
        ({"nodes": [{"name": n} for n in "abcde"]}, "optics: expected modules at some nodes, got none"),
        ({"nodes": [{"name": n, "modules": 2} for n in "abcde"]},
         "nodes[2]: expected at least 3 modules, for the QCs of its fibres, got 2"),
        ({"nodes": [{"name": n, "modules": -1} for n in "abcde"]}, "nodes[0].modules: expected a whole number"),
        ({"links": [{"a": a, "b": b, "delay_ms": 1} for a, b in ("ab", "bc", "cd", "de")]},
         "links[0]: expected loss_db or length_km beside optics, got neither"),
        ({"optics": OPTICS | {"channels": 1}, "links": [{"a": a, "b": b, "length_km": 9, "qcs": [{}, {}]}
                                                      for a, b in ("ab", "bd", "ce", "be")]},
         "links[0]: expected at most 1 QCs, as optics.channels says, got 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(changes, text):
    """In one line with the field."""
    assert refusal(**changes).startswith(f"line.yaml: {text}")


def test_modules_without_optics_are_refused():
    """Nobody knows what they are."""
    given = document()
    del given["optics"]

    with pytest.raises(TopologyError, match=r"nodes\[0\]: modules need the member optics"):
        build(Field("line.yaml", "", given))
