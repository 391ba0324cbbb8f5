"""The state that a GET shows beside the configuration: of links, interfaces, applications. PURE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etsi import gs015, gs015_testbed
from ietf.restconf import Tree
from node.config import NodeConfig
from node.tree.model import Entry, apps, capability, hops, interfaces, links, links_to, qcs_in_use


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
    generates: bool = False  # they bring key material, by the QC's own rhythm

    def status(self, *, enabled: bool) -> str:
        """The link's status: ACTIVE generates, PASSIVE has stock alone, OFF neither, PENDING never had anything."""
        if self.generates and enabled:
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
    backing = {app["app_id"]: [b for b in app.get("backing_qkdl_id", []) if b in found] for app in apps(tree)}
    below = links_to(physical)
    for link in links(tree):
        if link.get("qkdl_type") != gs015.VIRT:
            continue
        # Of a virtual link a node knows only its own part: the weaker of the physical links that it passes.
        passed = backing.get(link["qkdl_id"]) or [i for hop in hops(link) for i in below.get(hop, [])[:1]]
        parts = [found[i] for i in passed]
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


def live(tree: Tree, config: NodeConfig, state: State, ended: Sequence[str] = ()) -> dict[str, Any]:
    """Configuration and state together: what a GET shows. `ended`: applications of which no controller knows that."""
    node = tree[gs015.NODE]
    states = link_states(tree, config, state)
    if not capability(tree, "link_stats_support"):
        states = {key: {"qkdl_status": entry["qkdl_status"]} for key, entry in states.items()}
    statistics = capability(tree, "application_stats_support")
    shown_apps = []
    for app in apps(tree):
        known = state.apps.get(app["app_id"])
        shown = {**app, "app_status": gs015.ON}
        if known is not None:
            shown["creation_time"] = gs015.date_and_time(known.created)
        if known is not None and statistics:
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
            "qkd_links": {"qkd_link": [{**entry, **states[entry["qkdl_id"]]} for entry in links(tree)]},
        },
        gs015_testbed.NODE: {
            **tree[gs015_testbed.NODE],
            "qcs": {"qc": _shown_qcs(tree, config, state)},
            **({"ended": list(ended)} if ended else {}),
        },
    }


def _shown_qcs(tree: Tree, config: NodeConfig, state: State) -> list[dict[str, Any]]:
    numbers = {n.qc: i for i, n in enumerate(config.qcs, start=1)}
    shown = []
    for qc in tree[gs015_testbed.NODE].get("qcs", {}).get("qc", []):
        known = state.qcs.get(qc["name"], QcState())
        figures = {n: str(getattr(known, n)) for n in ("slot", "generated", "used", "expired", "stored")}
        shown.append({**qc, "qkdi_id": numbers[qc["name"]], **figures})
    return shown
