"""The node as GS QKD 015 models it: the configuration that it starts with, and the state that GETs show. PURE."""

from __future__ import annotations

import importlib.metadata
import itertools
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etsi import gs015, gs015_testbed
from etsi.errors import Malformed
from etsi.restconf import Model, Tree
from etsi.yang import Refusal
from node.blocks import MAX_PAYLOAD_BYTES
from node.config import NodeConfig
from node.parameters import Parameters, parse

MODEL: Model = {gs015.NODE: gs015.QKD_NODE, gs015_testbed.NODE: gs015_testbed.EXTRA}
_NAMES = uuid.uuid5(uuid.NAMESPACE_URL, "urn:qkd-testbed")
_CAPABILITIES = ("link_stats_support", "application_stats_support", "key_relay_mode_enable")
_VENDOR = "QKD testbed/emulated quantum channel"
_WAVELENGTHS = "1530-1565"  # nm, the C band
_MAX_ABSORPTION_DB = "24.0"

Entry = Mapping[str, Any]


def node_id(name: str) -> str:
    """The qkdn_id of the node of that name: the same in every run."""
    return str(uuid.uuid5(_NAMES, f"node/{name}"))


def link_id(qc: str) -> str:
    """The qkdl_id of the physical link that a QC feeds; both its ends come to the same."""
    return str(uuid.uuid5(_NAMES, f"qc/{qc}"))


def initial(config: NodeConfig, parameters: Parameters) -> dict[str, Any]:
    """The configuration of a node that nobody has configured: an interface and a physical link for each of its QCs."""
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


def apps(tree: Tree) -> list[dict[str, Any]]:
    """All applications."""
    return list(tree[gs015.NODE].get("qkd_applications", {}).get("qkd_app", []))


def links(tree: Tree) -> list[dict[str, Any]]:
    """All links, physical and virtual."""
    return list(tree[gs015.NODE].get("qkd_links", {}).get("qkd_link", []))


def interfaces(tree: Tree) -> list[dict[str, Any]]:
    """All interfaces."""
    return list(tree[gs015.NODE].get("qkd_interfaces", {}).get("qkd_interface", []))


def qcs_in_use(tree: Tree, own_qcs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The physical link that each QC feeds, by the QC's name: the first that is configured on the QC's interface."""
    found: dict[str, dict[str, Any]] = {}
    for link in links(tree):
        number = link.get("qkdl_local", {}).get("qkdi_id")
        if link.get("qkdl_type") == gs015.PHYS and isinstance(number, int) and 1 <= number <= len(own_qcs):
            found.setdefault(own_qcs[number - 1], link)
    return found


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
        text = "interfaces are what is installed here: they are not made or removed from afar"
        raise Refusal("operation-not-supported", text, path=f"/{gs015.NODE}/qkd_interfaces")
    kept_links = [_link(entry, own) for entry in links(tree)]
    virtual = {entry["qkdl_id"]: entry for entry in kept_links if entry.get("qkdl_type") == gs015.VIRT}
    known = {entry["app_id"]: entry for entry in apps(before)}
    gone = {entry["qkdl_id"] for entry in links(before) if entry.get("qkdl_type") == gs015.VIRT} - set(virtual)
    kept = [
        _app(entry, config, own, new=known.get(entry["app_id"]) != entry)
        for entry in apps(tree)
        if entry["app_id"] not in gone
    ]
    extra = _extra(tree.get(gs015_testbed.NODE, {}), config, before[gs015_testbed.NODE])
    there = {entry["app_id"] for entry in kept}
    below = _links_to(kept_links)
    kept += [_internal(entry, own, below) for key, entry in virtual.items() if key not in there]
    users: dict[str, list[str]] = {}
    for app in kept:
        for backing in app.get("backing_qkdl_id", []):
            users.setdefault(backing, []).append(app["app_id"])
    kept_links = [{**entry, "qkdl_applications": users.get(entry["qkdl_id"], [])} for entry in kept_links]
    return {
        gs015.NODE: {**node, "qkd_applications": {"qkd_app": kept}, "qkd_links": {"qkd_link": kept_links}},
        gs015_testbed.NODE: extra,
    }


def _extra(tree: Tree, config: NodeConfig, before: Tree) -> dict[str, Any]:
    if tree == before:
        return dict(tree)
    path = f"/{gs015_testbed.NODE}"
    try:
        parameters = parse(tree.get("parameters", {}), Parameters())
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
    if entry.get("qkdl_local", {}).get("qkdn_id", own) != own:
        raise Refusal("invalid-value", f"expected {own}, this node's ID", path=f"{path}/qkdl_local/qkdn_id")
    if entry.get("qkdl_remote", {}).get("qkdn_id") == own:
        raise Refusal("invalid-value", "expected another node than this one", path=f"{path}/qkdl_remote/qkdn_id")
    if len(entry.get("virt_next_hop", [])) > 1:
        raise Refusal("invalid-value", "expected one next hop: multicast is not offered", path=f"{path}/virt_next_hop")
    return {k: v for k, v in entry.items() if k != "qkdl_status"} | {"qkdl_enable": entry.get("qkdl_enable", True)}


def _app(entry: Entry, config: NodeConfig, own: str, *, new: bool) -> dict[str, Any]:
    path = f"/{gs015.NODE}/qkd_applications/qkd_app[app_id='{entry['app_id']}']"
    if entry.get("local_qkdn_id", own) != own:
        raise Refusal("invalid-value", f"expected {own}, this node's ID", path=f"{path}/local_qkdn_id")
    if entry.get("app_type") == gs015.CLIENT and new:
        saes = {sae_of(entry.get("server_app_id", "")), *(sae_of(c) for c in entry.get("client_app_id", []))}
        here = [sae for sae in saes if config.saes.get(sae) == config.name]
        remote = [sae for sae in saes if node_id(config.saes.get(sae, "")) == entry.get("remote_qkdn_id")]
        # A controller could name SAEs that are not the other node's: keys for them would end up with it.
        if len(saes) != 2 or len(here) != 1 or len(remote) != 1:
            text = "expected an SAE of this node and one of the node remote_qkdn_id"
            raise Refusal("invalid-value", text, path=f"{path}/server_app_id")
    return dict(entry)


def sae_of(uri: str) -> str:
    """The SAE ID in an application's URI: it may stand there as it is, or as a urn:uuid."""
    return uri.lower().removeprefix("urn:uuid:")


def _links_to(entries: Iterable[Entry]) -> dict[str, list[str]]:
    """Physical links by the node at their other end."""
    found: dict[str, list[str]] = {}
    for entry in entries:
        if entry.get("qkdl_type") == gs015.PHYS:
            found.setdefault(entry.get("qkdl_remote", {}).get("qkdn_id", ""), []).append(entry["qkdl_id"])
    return found


def hops(link: Entry) -> list[str]:
    """The neighbours of this node on a virtual link: one at its ends, two between."""
    found = [link.get("virt_prev_hop"), *link.get("virt_next_hop", [])]
    return [hop for hop in found if hop is not None]


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


@dataclass(frozen=True, slots=True)
class QcState:
    """A QC as this node sees it: bytes generated, used, expired, stored; rate in bit/s; QBER in percent."""

    slot: int = 0
    generated: int = 0
    used: int = 0
    expired: int = 0
    stored: int = 0
    rate_bps: float = 0.0
    qber_percent: float | None = None
    alive: bool = False  # blocks come, be they empty

    def status(self, *, enabled: bool) -> str:
        """The link's status: ACTIVE generates, PASSIVE has stock alone, OFF neither, PENDING never had anything."""
        if self.alive and enabled and self.rate_bps > 0:
            return gs015.ACTIVE
        if self.stored > 0:
            return gs015.PASSIVE
        return gs015.OFF if self.generated or not enabled else gs015.PENDING


@dataclass(frozen=True, slots=True)
class AppState:
    """What the node knows of an application: when it was made (wall clock, s), and bits consumed by period.

    A period is (start, end, bits), wall clock.
    """

    created: float
    periods: Sequence[tuple[float, float, int]] = ()


@dataclass(frozen=True, slots=True)
class State:
    """All that is not configuration."""

    qcs: Mapping[str, QcState]
    apps: Mapping[str, AppState]


def bandwidth(app: Entry) -> int:
    """What an application may take of the links below it, bit/s."""
    qos = app.get("app_qos", {})
    return int(qos.get("max_bandwidth", qos.get("min_bandwidth", 0)))


def link_states(tree: Tree, config: NodeConfig, state: State) -> dict[str, dict[str, Any]]:
    """Status and performance of each link, by its ID."""
    in_use = {link["qkdl_id"]: qc for qc, link in qcs_in_use(tree, [n.qc for n in config.qcs]).items()}
    demand: dict[str, int] = {}
    internal: dict[str, int] = {}
    for app in apps(tree):
        for backing in app.get("backing_qkdl_id", []):
            demand[backing] = demand.get(backing, 0) + bandwidth(app)
            if app.get("app_type") == gs015.INTERNAL:
                internal[backing] = internal.get(backing, 0) + bandwidth(app)
    found: dict[str, dict[str, Any]] = {}
    physical = [entry for entry in links(tree) if entry.get("qkdl_type") == gs015.PHYS]
    for link in physical:
        key = link["qkdl_id"]
        qc = state.qcs.get(in_use.get(key, ""), QcState())
        performance: dict[str, Any] = {
            "expected_consumption": gs015.clamped(demand.get(key, 0)), "skr": gs015.clamped(qc.rate_bps),
            "eskr": gs015.clamped(qc.rate_bps - internal.get(key, 0)), "phys_perf": [],
        }  # fmt: skip
        if qc.qber_percent is not None:
            performance["phys_perf"] = [{"perf_type": gs015.QBER, "value": gs015.decimal3(qc.qber_percent)}]
        status = qc.status(enabled=link["qkdl_enable"])
        found[key] = {"qkdl_status": status, "qkdl_performance": performance}
    below = _links_to(physical)
    for link in links(tree):
        if link.get("qkdl_type") != gs015.VIRT:
            continue
        # Of a virtual link a node knows only its own part: the weaker of the physical links that it passes.
        parts = [found[i] for i in itertools.chain.from_iterable(below.get(hop, [])[:1] for hop in hops(link))]
        skr = min((p["qkdl_performance"]["skr"] for p in parts), default=0)
        skr = min(skr, link.get("virt_bandwidth", skr))
        order = (gs015.ACTIVE, gs015.PASSIVE, gs015.PENDING, gs015.OFF)
        status = max((p["qkdl_status"] for p in parts), key=order.index, default=gs015.PENDING)
        found[link["qkdl_id"]] = {
            "qkdl_status": status if link["qkdl_enable"] else gs015.OFF,
            "qkdl_performance": {
                "expected_consumption": gs015.clamped(demand.get(link["qkdl_id"], 0)), "skr": skr, "eskr": skr,
            },
        }  # fmt: skip
    return found


def live(tree: Tree, config: NodeConfig, state: State) -> dict[str, Any]:
    """Configuration and state together: what a GET shows."""
    node = tree[gs015.NODE]
    performances = link_states(tree, config, state)
    shown_apps = []
    for app in apps(tree):
        known = state.apps.get(app["app_id"])
        shown = {**app, "app_status": gs015.ON}
        if known is not None:
            shown["creation_time"] = gs015.date_and_time(known.created)
            shown["app_statistics"] = {
                "statistics": [
                    {"end_time": gs015.date_and_time(end), "start_time": gs015.date_and_time(start),
                     "consumed_bits": gs015.clamped(bits)}
                    for start, end, bits in known.periods
                ]
            }  # fmt: skip
        shown_apps.append(shown)
    shown_interfaces = []
    for interface in interfaces(tree):
        qc = state.qcs.get(config.qcs[interface["qkdi_id"] - 1].qc, QcState())
        shown_interfaces.append({**interface, "qkdi_status": gs015.ENABLED if qc.alive else gs015.DISABLED})
    return {
        gs015.NODE: {
            **node,
            "qkdn_status": gs015.OPERATING,
            "qkd_applications": {"qkd_app": shown_apps},
            "qkd_interfaces": {"qkd_interface": shown_interfaces},
            "qkd_links": {"qkd_link": [{**entry, **performances[entry["qkdl_id"]]} for entry in links(tree)]},
        },
        gs015_testbed.NODE: {**tree[gs015_testbed.NODE], "qcs": {"qc": _shown_qcs(tree, config, state)}},
    }


def _shown_qcs(tree: Tree, config: NodeConfig, state: State) -> list[dict[str, Any]]:
    numbers = {n.qc: i for i, n in enumerate(config.qcs, start=1)}
    shown = []
    for qc in tree[gs015_testbed.NODE].get("qcs", {}).get("qc", []):
        known = state.qcs.get(qc["name"], QcState())
        figures = {n: str(getattr(known, n)) for n in ("slot", "generated", "used", "expired", "stored")}
        shown.append({**qc, "qkdi_id": numbers[qc["name"]], **figures})
    return shown
