"""What fails when, and for how long: QCs, fibres and nodes; and who listens. A file says so. PURE."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scenario import yaml_documents
from scenario.topology_description import Field, Topology, choice

QC, FIBRE, NODE, EVE = "qc", "fibre", "node", "eve"
_KINDS = (QC, FIBRE, NODE, EVE)
_MAX_S = 1e7


@dataclass(frozen=True, slots=True)
class Outage:
    """Of the QC, fibre or node `name`, from `at_s` seconds after the beginning on, for `for_s` (None: for good).

    A QC that is out makes nothing; what is stored of it serves on. So do all QCs of a fibre that is cut. On a fibre on
    which somebody listens (EVE), that `fraction` of the pulses is intercepted and sent again.
    """

    kind: str
    name: str
    at_s: float
    for_s: float | None = None
    fraction: float = 1.0

    def qcs(self, topology: Topology) -> Collection[str]:
        """The QCs that it concerns."""
        if self.kind == QC:
            return [self.name]
        if self.kind in (FIBRE, EVE):
            return topology.qcs_over(self.name)
        return [qc.name for qc, a, b in topology.qcs() if self.name in (a, b)]


def load(path: Path, topology: Topology) -> list[Outage]:
    """The outages in a file (YAML), by time; TopologyError, one line."""
    return parse(yaml_documents.read(path), path.name, topology)


def parse(document: object, source: str, topology: Topology) -> list[Outage]:
    """The outages in a document, a list, by time; TopologyError names the member and what was expected."""
    fibres = [link.name for link in topology.links]
    known = {
        QC: [qc.name for qc, _, _ in topology.qcs()],
        FIBRE: fibres,
        EVE: fibres,
        NODE: [node.name for node in topology.nodes],
    }
    found = [_outage(entry, known) for entry in Field(source, "", document).items()]
    return sorted(found, key=lambda outage: outage.at_s)


def _outage(field: Field, known: Mapping[str, Sequence[str]]) -> Outage:
    given = field.members("at_s", **dict.fromkeys((*_KINDS, "for_s", "fraction")))
    kinds = [kind for kind in _KINDS if kind in given]
    if len(kinds) != 1:
        raise field.expected(f"one of {', '.join(_KINDS)}")
    (kind,) = kinds
    name = given[kind].value
    if name not in known[kind]:
        of = FIBRE if kind == EVE else kind
        raise given[kind].error(f"unknown {of} {given[kind].value!r:.60}; {choice(name, known[kind], f'{of}s')}")
    for_s = given["for_s"].number(_MAX_S) if "for_s" in given else None
    fraction = given["fraction"].number(1) if "fraction" in given else 1.0
    if "fraction" in given and (kind != EVE or not fraction):
        raise given["fraction"].expected("a number above 0 and up to 1, beside eve alone")
    return Outage(kind, str(name), given["at_s"].number(_MAX_S), for_s, fraction)
