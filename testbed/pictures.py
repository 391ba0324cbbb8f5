"""`python -m testbed.pictures TOPOLOGY`: a topology as SVG, at the positions of its file. PURE but for the main part.

Greyscale by design: what it says, it says by shape and words, so that it reads on any projector and in print.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from xml.sax.saxutils import escape

from scenario.topology import Link, Topology, TopologyError, load

_WIDTH, _HEIGHT, _MARGIN = 860, 560, 110
_BOX_WIDTH, _LINE = 150, 16
_STYLE = (
    "text{font-family:sans-serif;font-size:13px;text-anchor:middle;fill:#111}"
    ".title{font-weight:bold;font-size:15px}.sae{font-size:12px;fill:#444}.external{font-style:italic}"
    ".fibre{stroke:#888;stroke-width:7}.qc{stroke:#111;stroke-width:1.5;stroke-dasharray:6 4}"
    ".node{fill:#fff;stroke:#111;stroke-width:1.5}.label{fill:#fff;opacity:.9}"
)


def draw(topology: Topology) -> str:
    """The network as an SVG document: datacenters with their applications, fibres with length and delay, QCs."""
    at = {n.name: _place(n.position) for n in topology.nodes}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{escape(topology.description or topology.name)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
    ]
    for link in topology.links:
        (x1, y1), (x2, y2) = at[link.a], at[link.b]
        line = f'x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"'
        parts += [f'<line class="fibre" {line}/>', f'<line class="qc" {line}/>']
    for link in topology.links:
        (x1, y1), (x2, y2) = at[link.a], at[link.b]
        parts += _label((x1 + x2) // 2, (y1 + y2) // 2, _describe(link))
    for node in topology.nodes:
        services = [
            ("sae", name)
            for name, where in (("controller", topology.controller_at), ("shared database", topology.database_at))
            if where == node.name
        ]
        saes = [("sae external" if s.external else "sae", s.name) for s in topology.saes if s.node == node.name]
        parts += _box(*at[node.name], node.title, services + saes)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _place(position: tuple[float, float]) -> tuple[int, int]:
    x, y = position
    return round(_MARGIN + x * (_WIDTH - 2 * _MARGIN)), round(_MARGIN + (1 - y) * (_HEIGHT - 2 * _MARGIN))


def _describe(link: Link) -> list[str]:
    length = [] if link.length_km is None else [f"{link.length_km:g} km"]
    there, back = (f"{shape.delay_ms:.3g}" for shape in (link.a_to_b, link.b_to_a))
    return [", ".join([*length, f"{there} ms" if there == back else f"{there} / {back} ms"])]


def _label(x: int, y: int, lines: list[str]) -> list[str]:
    width = 7 * max(map(len, lines)) + 8
    height = _LINE * len(lines) + 4
    box = f'<rect class="label" x="{x - width // 2}" y="{y - 11}" width="{width}" height="{height}"/>'
    return [box, *(f'<text x="{x}" y="{y + 3 + _LINE * i}">{escape(line)}</text>' for i, line in enumerate(lines))]


def _box(x: int, y: int, title: str, lines: list[tuple[str, str]]) -> list[str]:
    """A datacenter; `lines` are what it has, each with its class. Italics stand for software that is not ours."""
    height = _LINE * (len(lines) + 1) + 16
    top = y - height // 2
    left = x - _BOX_WIDTH // 2
    parts = [f'<rect class="node" x="{left}" y="{top}" width="{_BOX_WIDTH}" height="{height}" rx="6"/>']
    parts.append(f'<text class="title" x="{x}" y="{top + 20}">{escape(title)}</text>')
    parts += [
        f'<text class="{kind}" x="{x}" y="{top + 22 + _LINE * (i + 1)}">{escape(line)}</text>'
        for i, (kind, line) in enumerate(lines)
    ]
    return parts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m testbed.pictures", description="Draw a topology as SVG.")
    parser.add_argument("topology", metavar="TOPOLOGY", help="name of one that ships, or a file")
    given = parser.parse_args()
    try:
        sys.stdout.write(draw(load(given.topology, Path(__file__).resolve().parent.parent / "topologies")))
    except TopologyError as error:
        print(f"pictures: {error}", file=sys.stderr)
        sys.exit(2)
