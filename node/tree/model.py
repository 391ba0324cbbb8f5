"""The node as GS QKD 015 models it: the names of things in its tree, and ways to find them. PURE."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etsi import gs015, gs015_testbed
from ietf.restconf import Model, Tree

MODEL: Model = {gs015.NODE: gs015.QKD_NODE, gs015_testbed.NODE: gs015_testbed.EXTRA}
_NAMES = uuid.uuid5(uuid.NAMESPACE_URL, "urn:qkd-testbed")

Entry = Mapping[str, Any]


def node_id(name: str) -> str:
    """The qkdn_id of the node of that name: the same in every run."""
    return str(uuid.uuid5(_NAMES, f"node/{name}"))


def link_id(qc: str) -> str:
    """The qkdl_id of the physical link that a QC feeds; both its ends come to the same."""
    return str(uuid.uuid5(_NAMES, f"qc/{qc}"))


def apps(tree: Tree) -> list[dict[str, Any]]:
    """All applications."""
    return list(tree[gs015.NODE].get("qkd_applications", {}).get("qkd_app", []))


def links(tree: Tree) -> list[dict[str, Any]]:
    """All links, physical and virtual."""
    return list(tree[gs015.NODE].get("qkd_links", {}).get("qkd_link", []))


def interfaces(tree: Tree) -> list[dict[str, Any]]:
    """All interfaces."""
    return list(tree[gs015.NODE].get("qkd_interfaces", {}).get("qkd_interface", []))


def capability(tree: Tree, name: str) -> bool:
    """Whether the node does what that member of qkdn_capabilities says: all of them are true unless said otherwise."""
    return bool(tree[gs015.NODE].get("qkdn_capabilities", {}).get(name, True))


def qcs_in_use(tree: Tree, own_qcs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The physical link that each QC feeds, by the QC's name: the first that is configured on the QC's interface."""
    found: dict[str, dict[str, Any]] = {}
    for link in links(tree):
        number = link.get("qkdl_local", {}).get("qkdi_id")
        if link.get("qkdl_type") == gs015.PHYS and isinstance(number, int) and 1 <= number <= len(own_qcs):
            found.setdefault(own_qcs[number - 1], link)
    return found


def hops(link: Entry) -> list[str]:
    """The neighbours of this node on a virtual link: one at its ends, two between."""
    found = [link.get("virt_prev_hop"), *link.get("virt_next_hop", [])]
    return [hop for hop in found if hop is not None]


def links_to(entries: Iterable[Entry]) -> dict[str, list[str]]:
    """Physical links by the node at their other end."""
    found: dict[str, list[str]] = {}
    for entry in entries:
        if entry.get("qkdl_type") == gs015.PHYS:
            found.setdefault(entry.get("qkdl_remote", {}).get("qkdn_id", ""), []).append(entry["qkdl_id"])
    return found
