"""Files that say what fails when."""

from __future__ import annotations

from pathlib import Path

import pytest

from scenario.outages import Outage, load, parse
from scenario.topology import load as load_topology
from scenario.topology_description import TopologyError

POLIQI = load_topology("poliqi", Path(__file__).resolve().parents[3] / "topologies")


def test_outages_are_read_in_the_order_of_their_times(tmp_path):
    """Of nodes, fibres and QCs, for a while or for good."""
    path = tmp_path / "plan.yaml"
    path.write_text("- {at_s: 30, node: finance}\n- {at_s: 5.5, for_s: 20, fibre: telecom-finance}\n")

    assert load(path, POLIQI) == [
        Outage("fibre", "telecom-finance", 5.5, 20.0), Outage("node", "finance", 30.0, None)
    ]  # fmt: skip


def test_eavesdropper_listens_on_a_fibre_to_a_fraction_of_the_pulses_or_to_all():
    """She concerns the QCs whose light the fibre takes."""
    given = [{"at_s": 1, "for_s": 9, "eve": "telecom-finance", "fraction": 0.3}, {"at_s": 2, "eve": "telecom-finance"}]

    some, all_ = parse(given, "plan.yaml", POLIQI)

    assert (some, all_.fraction) == (Outage("eve", "telecom-finance", 1.0, 9.0, 0.3), 1.0)
    assert some.qcs(POLIQI) == ["telecom-finance/1"]


def test_outage_of_a_node_stops_all_its_qcs():
    """And one of a fibre those of that fibre."""
    assert Outage("node", "finance", 0).qcs(POLIQI) == ["telecom-finance/1", "finance-university/1"]
    assert Outage("fibre", "telecom-finance", 0).qcs(POLIQI) == ["telecom-finance/1"]
    assert Outage("qc", "telecom-finance/1", 0).qcs(POLIQI) == ["telecom-finance/1"]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"node": "finance"}, "expected a list"),
        ([{"node": "finance"}], "at_s: missing"),
        ([{"at_s": 1}], "expected one of qc, fibre, node, eve"),
        ([{"at_s": 1, "node": "finance", "qc": "telecom-finance/1"}], "expected one of qc, fibre, node, eve"),
        ([{"at_s": 1, "node": "finanse"}], "did you mean 'finance'"),
        ([{"at_s": -1, "node": "finance"}], "at_s: expected a plain number"),
        ([{"at_s": 1, "node": "finance", "for_s": "long"}], "for_s: expected a plain number"),
        ([{"at_s": 1, "node": ["finance"]}], "unknown node"),
        ([{"at_s": 1, "eve": "finance"}], "eve: unknown fibre"),
        ([{"at_s": 1, "eve": "telecom-finance", "fraction": 0}], "fraction: expected a number above 0 and up to 1"),
        ([{"at_s": 1, "eve": "telecom-finance", "fraction": 1.5}], "fraction: expected"),
        ([{"at_s": 1, "fibre": "telecom-finance", "fraction": 0.5}], "fraction: .* beside eve alone"),
    ],
)
def test_what_cannot_be_is_refused_by_its_place(document, said):
    """In one line."""
    with pytest.raises(TopologyError, match=said) as refused:
        parse(document, "plan.yaml", POLIQI)
    assert "plan.yaml" in str(refused.value)
    assert "\n" not in str(refused.value)
