"""Networks drawn."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from scenario.topology import load
from testbed.pictures import draw

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", ["pair", "poliqi", "nsfnet"])
def test_picture_names_everything(name):
    """Well-formed SVG with every datacenter, application and fibre of the network."""
    topology = load(name, ROOT / "topologies")
    svg = ElementTree.fromstring(draw(topology))  # noqa: S314 - our own

    texts = {e.text for e in svg.iter("{http://www.w3.org/2000/svg}text")}
    fibres = [e for e in svg.iter("{http://www.w3.org/2000/svg}line") if e.get("class") == "fibre"]
    assert {n.title for n in topology.nodes} | {s.name for s in topology.saes} <= texts
    assert len(fibres) == len(topology.links)


def test_picture_in_the_readme_is_of_today():
    """`make pictures` draws it anew."""
    assert (ROOT / "docs" / "poliqi.svg").read_text() == draw(load("poliqi", ROOT / "topologies"))
