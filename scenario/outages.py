"""What fails when, and for how long: QCs, fibres and nodes; a file says so. PURE."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scenario import yaml_documents
from scenario.topology_description import Field, Topology, choice

QC, FIBRE, NODE = "qc", "fibre", "node"
_KINDS = (QC, FIBRE, NODE)
_MAX_S = 1e7


@dataclass(frozen=True, slots=True)
class Outage:
    """Of the QC, fibre or node `name`, from `at_s` seconds after the beginning on, for `for_s` (None: for good).

    A QC that is out makes nothing; what is stored of it serves on. So do all QCs of a fibre that is cut.
    """

    kind: str
    name: str
    at_s: float
    for_s: float | None = None

    def qcs(self, topology: Topology) -> Collection[str]:
        """The QCs that make nothing."""
        if self.kind == QC:
            return [self.name]
        if self.kind == FIBRE:
            return topology.qcs_over(self.name)
        return [qc.name for qc, a, b in topology.qcs() if self.name in (a, b)]


def load(path: Path, topology: Topology) -> list[Outage]:
    """The outages in a file (YAML), by time; TopologyError, one line."""
    return parse(yaml_documents.read(path), path.name, topology)


def parse(document: object, source: str, topology: Topology) -> list[Outage]:
    """The outages in a document, a list, by time; TopologyError names the member and what was expected."""
    known = {
        QC: [qc.name for qc, _, _ in topology.qcs()],
        FIBRE: [link.name for link in topology.links],
        NODE: [node.name for node in topology.nodes],
    }
    found = [_outage(entry, known) for entry in Field(source, "", document).items()]
    return sorted(found, key=lambda outage: outage.at_s)


def _outage(field: Field, known: Mapping[str, Sequence[str]]) -> Outage:
    given = field.members("at_s", **dict.fromkeys((*_KINDS, "for_s")))
    kinds = [kind for kind in _KINDS if kind in given]
    if len(kinds) != 1:
        raise field.expected(f"one of {', '.join(_KINDS)}")
    (kind,) = kinds
    name = given[kind].value
    if name not in known[kind]:
        raise given[kind].error(f"unknown {kind} {given[kind].value!r:.60}; {choice(name, known[kind], f'{kind}s')}")
    for_s = given["for_s"].number(_MAX_S) if "for_s" in given else None
    return Outage(kind, str(name), given["at_s"].number(_MAX_S), for_s)
