"""The node as GS QKD 015 models it: the names of things in its tree, ways to find them, and what it is configured to.

PURE.
"""

from __future__ import annotations

import importlib.metadata
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from documents.checks import Malformed
from etsi import gs015, gs015_testbed
from etsi.sae_id import from_uri
from ietf.restconf import Model, Target, Tree
from ietf.yang import Refusal
from node.config import NodeConfig, Parameters, parse_parameters
from node.material.blocks import MAX_PAYLOAD_BYTES

MODEL: Model = {gs015.NODE: gs015.QKD_NODE, gs015_testbed.NODE: gs015_testbed.EXTRA}
_NAMES = uuid.uuid5(uuid.NAMESPACE_URL, "urn:qkd-testbed")

Entry = Mapping[str, Any]
# Kinds of documents that are kept beside those of applications, by app_id: a request for keys called for it; it ended,
# and those who are to know of that have not all been told.
IMPLICIT, ENDED = "implicit", "ended"


def node_id(name: str) -> str:
    """The qkdn_id of the node of that name: the same in every run."""
    return str(uuid.uuid5(_NAMES, f"node/{name}"))


def link_id(qc: str) -> str:
    """The qkdl_id of the physical link that a QC feeds; both its ends come to the same."""
    return str(uuid.uuid5(_NAMES, f"qc/{qc}"))


def apps(tree: Tree) -> list[dict[str, Any]]:
    """All applications."""
    return list(tree.get(gs015.NODE, {}).get("qkd_applications", {}).get("qkd_app", []))


def links(tree: Tree) -> list[dict[str, Any]]:
    """All links, physical and virtual."""
    return list(tree.get(gs015.NODE, {}).get("qkd_links", {}).get("qkd_link", []))


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


@dataclass(frozen=True, slots=True)
class Change:
    """A configuration and the one before it, with the applications and links that differ.

    By ID, what was and what is; None is nothing.
    """

    old: Tree
    new: Tree
    apps: Mapping[str, tuple[Entry | None, Entry | None]]
    links: Mapping[str, tuple[Entry | None, Entry | None]]


def change(old: Tree, new: Tree) -> Change:
    """What is different in `new`."""
    return Change(
        old, new, _differing(apps(old), apps(new), "app_id"), _differing(links(old), links(new), "qkdl_id")
    )


def _differing(
    old: Sequence[Entry], new: Sequence[Entry], key: str
) -> dict[str, tuple[Entry | None, Entry | None]]:
    """What differs in either list. What both begin and end with is passed over: an edit touches few of many entries."""
    first = _same(old, new)
    old, new = old[first:], new[first:]
    last = _same(old[::-1], new[::-1])
    before = {entry[key]: entry for entry in old[: len(old) - last]}
    after = {entry[key]: entry for entry in new[: len(new) - last]}
    found = {name: (before.get(name), after.get(name)) for name in before | after}
    return {name: (was, now) for name, (was, now) in found.items() if was is not now and was != now}


def _same(old: Sequence[Entry], new: Sequence[Entry]) -> int:
    """How many entries both begin with. By halves, for lists of the same objects are compared in no time."""
    low, high = 0, min(len(old), len(new))
    while low < high:
        middle = (low + high + 1) // 2
        if old[low:middle] == new[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


_CAPABILITIES = ("link_stats_support", "application_stats_support", "key_relay_mode_enable")
_VENDOR = "QKD testbed/emulated quantum channel"
_WAVELENGTHS = "1530-1565"  # nm, the C band
_MAX_ABSORPTION_DB = "24.0"
# The lists of what is installed, which stand in these containers.
_INSTALLED = {(gs015.NODE, "qkd_interfaces"), (gs015_testbed.NODE, "qcs")}
_INSTALLED_TEXT = "these are what is installed here: they are not made or removed from afar"


def initial(config: NodeConfig, parameters: Parameters) -> dict[str, Any]:
    """The configuration of a node that nobody has configured: an interface for each of its QCs, and a physical link
    unless the QC is dark.
    """
    own = node_id(config.name)
    interfaces, links = [], []
    for number, neighbour in enumerate(config.qcs, start=1):
        transmits = config.name < neighbour.peer
        role = gs015.TRANSMITTER if transmits else gs015.RECEIVER
        interfaces.append(
            {
                "qkdi_id": number, "qkdi_model": _VENDOR, "qkdi_type": gs015.DV_QKD,
                "qkdi_att_point": {"device": neighbour.qc, "port": 1 if transmits else 2},
                "qkdi_capabilities": {
                    "role_support": role, "wavelength_range": _WAVELENGTHS, "max_absorption": _MAX_ABSORPTION_DB,
                },
            }
        )  # fmt: skip
        if neighbour.dark:
            continue
        links.append(
            {
                "qkdl_id": link_id(neighbour.qc), "qkdl_enable": True,
                "qkdl_local": {"qkdn_id": own, "qkdi_id": number},
                "qkdl_remote": {"qkdn_id": node_id(neighbour.peer), "qkdi_id": neighbour.remote_interface},
                "qkdl_type": gs015.PHYS, "qkdl_applications": [], "phys_qkd_role": role,
            }
        )  # fmt: skip
    node = {
        "qkdn_id": own, "qkdn_version": importlib.metadata.version("qkd-testbed"), "qkdn_location_id": config.name,
        "qkdn_capabilities": dict.fromkeys(_CAPABILITIES, True), "qkd_applications": {"qkd_app": []},
        "qkd_interfaces": {"qkd_interface": interfaces}, "qkd_links": {"qkd_link": links},
    }  # fmt: skip
    extra = {"parameters": parameters.to_json(), "qcs": {"qc": [{"name": n.qc} for n in config.qcs]}}
    return {gs015.NODE: node, gs015_testbed.NODE: extra}


def why_not(method: str, target: Target) -> str | None:
    """Why this node never does that to what `target` names, whatever the model allows; None if it may."""
    if tuple(step.name for step in target.steps[:2]) not in _INSTALLED:
        return None
    depth, last = len(target.steps), target.steps[-1]
    makes = method == "POST" and (depth == 2 or (depth == 3 and last.value is None))
    removes = method == "DELETE" and depth <= 3
    return _INSTALLED_TEXT if makes or removes else None


def normalised(tree: Tree, config: NodeConfig, before: Tree) -> dict[str, Any]:
    """The configuration after a client's edit as the node takes it over; Refusal if it cannot be the node's.

    A virtual link is an application of the links below it: where the client did not make that INTERNAL application, it
    is made here, and it goes with its link. `qkdl_applications` and `qkdl_status` are the node's to say.
    """
    node = tree.get(gs015.NODE, {})
    own = node_id(config.name)
    if node.get("qkdn_id") != own:
        raise Refusal("invalid-value", f"expected {own}, this node's ID", path=f"/{gs015.NODE}/qkdn_id")
    if {i["qkdi_id"] for i in interfaces(tree)} != {i["qkdi_id"] for i in interfaces(before)}:
        raise Refusal("operation-not-supported", _INSTALLED_TEXT, path=f"/{gs015.NODE}/qkd_interfaces", status=501)
    found = change(before, tree)
    linked = {name: _link(now, own) for name, (_, now) in found.links.items() if now is not None}
    kept_links = [linked.get(entry["qkdl_id"], entry) for entry in links(tree)]
    gone = {
        name
        for name, (was, _) in found.links.items()
        if was is not None and was["qkdl_type"] == gs015.VIRT and not _is_virtual(linked.get(name))
    }
    checked = {name: _app(now, config, own) for name, (_, now) in found.apps.items() if now is not None}
    kept = [checked.get(entry["app_id"], entry) for entry in apps(tree) if entry["app_id"] not in gone]
    extra = _extra(tree.get(gs015_testbed.NODE, {}), config, before[gs015_testbed.NODE])
    # Links that may lack their application: new ones, and those whose application was changed.
    lacking = {name for name, entry in linked.items() if _is_virtual(entry)} | (found.apps.keys() - gone)
    lacking -= {entry["app_id"] for entry in kept}
    if lacking:
        below = links_to(kept_links)
        virtual = (entry for entry in kept_links if entry["qkdl_id"] in lacking and _is_virtual(entry))
        kept += [_internal(entry, own, below) for entry in virtual]
    return {
        gs015.NODE: {
            **node,
            "qkd_applications": {"qkd_app": kept},
            "qkd_links": {"qkd_link": with_users(kept_links, linked, before, kept)},
        },
        gs015_testbed.NODE: extra,
    }


def _is_virtual(link: Entry | None) -> bool:
    return link is not None and link.get("qkdl_type") == gs015.VIRT


def with_users(
    kept_links: Sequence[Entry], linked: Collection[str], before: Tree, kept: Sequence[Entry]
) -> list[Entry]:
    """The links with the IDs of the applications that they feed: those in `linked` and whose applications changed."""
    gone: dict[str, set[str]] = {link: set() for link in linked}
    come: dict[str, list[str]] = {}
    for name, (was, now) in _differing(apps(before), kept, "app_id").items():
        fed, feeds = (list(app.get("backing_qkdl_id", [])) if app is not None else [] for app in (was, now))
        for link in (*fed, *feeds):
            gone.setdefault(link, set()).update({name} if link not in feeds else ())
        for link in feeds:
            if link not in fed:
                come.setdefault(link, []).append(name)
    there = {entry["qkdl_id"]: entry["qkdl_applications"] for entry in links(before) if entry["qkdl_id"] in gone}
    users = {link: [a for a in had if a not in gone[link]] + come.get(link, []) for link, had in there.items()}
    new = {link: list[str]() for link in gone if link not in there}  # which applications may have named before
    for app in kept if new else ():
        for link in app.get("backing_qkdl_id", []):
            if link in new:
                new[link].append(app["app_id"])
    users |= new
    return [
        {**entry, "qkdl_applications": users[entry["qkdl_id"]]} if entry["qkdl_id"] in users else entry
        for entry in kept_links
    ]


def _extra(tree: Tree, config: NodeConfig, before: Tree) -> dict[str, Any]:
    if tree is before or tree == before:
        return dict(before)
    path = f"/{gs015_testbed.NODE}"
    try:
        parameters = parse_parameters(tree.get("parameters", {}), Parameters())
    except Malformed as error:
        raise Refusal("invalid-value", str(error), path=f"{path}/parameters") from None
    entries = {qc["name"]: qc for qc in tree.get("qcs", {}).get("qc", [])}
    if set(entries) != {n.qc for n in config.qcs}:
        raise Refusal("invalid-value", "expected the names of this node's QCs", path=f"{path}/qcs")
    for name, qc in entries.items():
        rate = qc.get("rate", {"low": 0, "high": 0})
        if not {"low", "high"} <= set(rate) or not rate["low"] <= rate["high"] <= MAX_PAYLOAD_BYTES:
            text = f"expected low and high, in bytes a slot, low <= high <= {MAX_PAYLOAD_BYTES}"
            raise Refusal("invalid-value", text, path=f"{path}/qcs/qc[name='{name}']/rate")
    return {"parameters": parameters.to_json(), "qcs": {"qc": list(entries.values())}}


def _link(entry: Entry, own: str) -> dict[str, Any]:
    path = f"/{gs015.NODE}/qkd_links/qkd_link[qkdl_id='{entry['qkdl_id']}']"
    if "qkdl_type" not in entry:
        raise Refusal("missing-element", "expected qkdl_type", path=path)
    # A node between has no end of a virtual link: a widely used controller tells it of the ends of the whole link.
    between = entry["qkdl_type"] == gs015.VIRT and len(hops(entry)) > 1
    if not between and entry.get("qkdl_local", {}).get("qkdn_id", own) != own:
        raise Refusal("invalid-value", f"expected {own}, this node's ID", path=f"{path}/qkdl_local/qkdn_id")
    if entry.get("qkdl_remote", {}).get("qkdn_id") == own:
        raise Refusal("invalid-value", "expected another node than this one", path=f"{path}/qkdl_remote/qkdn_id")
    if len(entry.get("virt_next_hop", [])) > 1:
        raise Refusal("invalid-value", "expected one next hop: multicast is not offered", path=f"{path}/virt_next_hop")
    return {k: v for k, v in entry.items() if k != "qkdl_status"} | {"qkdl_enable": entry.get("qkdl_enable", True)}


def _app(entry: Entry, config: NodeConfig, own: str) -> dict[str, Any]:
    path = f"/{gs015.NODE}/qkd_applications/qkd_app[app_id='{entry['app_id']}']"
    if entry.get("local_qkdn_id", own) != own:
        raise Refusal("invalid-value", f"expected {own}, this node's ID", path=f"{path}/local_qkdn_id")
    if entry.get("app_type") == gs015.CLIENT:
        saes = {from_uri(entry.get("server_app_id", "")), *(from_uri(c) for c in entry.get("client_app_id", []))}
        here = [sae for sae in saes if config.saes.get(sae) == config.name]
        remote = [sae for sae in saes if node_id(config.saes.get(sae, "")) == entry.get("remote_qkdn_id")]
        # A controller could name SAEs that are not the other node's: keys for them would end up with it.
        if len(saes) != 2 or len(here) != 1 or len(remote) != 1:
            text = "expected an SAE of this node and one of the node remote_qkdn_id"
            raise Refusal("invalid-value", text, path=f"{path}/server_app_id")
    return dict(entry)


def _internal(link: Entry, own: str, below: Mapping[str, list[str]]) -> dict[str, Any]:
    backing = [below[hop][0] for hop in hops(link) if below.get(hop)]
    app: dict[str, Any] = {
        "app_id": link["qkdl_id"], "app_type": gs015.INTERNAL, "server_app_id": f"urn:uuid:{own}",
        "backing_qkdl_id": backing, "local_qkdn_id": own,
    }  # fmt: skip
    if "qkdn_id" in link.get("qkdl_remote", {}):
        app["remote_qkdn_id"] = link["qkdl_remote"]["qkdn_id"]
    if "virt_bandwidth" in link:
        app["app_qos"] = {"max_bandwidth": link["virt_bandwidth"]}
    return app
