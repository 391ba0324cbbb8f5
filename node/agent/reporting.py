"""What a node tells those who listen of its QCs and links: figures for admission, and the standard's notifications.

A report that is lost with its connection would be missing in the load that admission control counts. So figures are
told as differences of totals, and a new listener is told of the last slots once more. Reports that overlap take the
place of one another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from etsi import gs015
from node import limits
from node.config import NodeConfig
from node.material.key_store import KeyStore
from node.serving.requested_bytes import Requested
from node.tree.datastore import Datastore
from node.tree.model import capability, qcs_in_use
from node.tree.notifications import Streams
from node.tree.operational_state import link_states
from node.tree.performance import Performance, Watch
from telemetry.journal import Journal


@dataclass(frozen=True, slots=True)
class Totals:
    """Bytes by QC at the end of a slot, counted from whenever: made at and taken from this node's QCs, asked of any."""

    slot: int
    generated: Mapping[str, int] = field(default_factory=dict)
    requested: Mapping[str, int] = field(default_factory=dict)
    used: Mapping[str, int] = field(default_factory=dict)


class Reports:
    """The totals at the ends of the slots that were reported last, the first of which is `first`."""

    def __init__(self, first: Totals) -> None:
        self._kept = [first]
        self._last: tuple[int, int, Totals] = (first.slot, 0, first)  # slot, listener, what it counted from

    def since(self, now: Totals, listener: int) -> Totals:
        """The totals from which the figures of the next report count; it ends with `now`, and is for that listener."""
        slot, told, base = self._last
        earlier = [t for t in self._kept if t.slot < now.slot]
        if not earlier:  # the slots count from the beginning again
            base = self._kept[-1]
        elif listener != told:
            base = earlier[0]
        elif slot != now.slot:  # else this report takes the place of the one before
            base = earlier[-1]
        self._last = now.slot, listener, base
        # What is told in one report is told again in one, or not at all: half of it cannot be replaced.
        earlier = [t for t in earlier if t.slot <= base.slot]
        last = max((i for i, t in enumerate(earlier) if t.slot <= now.slot - limits.RETOLD_SLOTS), default=0)
        self._kept = [*earlier[last:], now]
        return base


class Reporting:
    """Tells `streams`. Each of its methods is for one thread. `why_silent`: why no block of a QC comes, if it knows."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        datastore: Datastore,
        store: KeyStore,
        performance: Performance,
        requested: Requested,
        streams: Streams,
        journal: Journal,
        why_silent: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        self._config = config
        self._why_silent = why_silent
        self._datastore = datastore
        self._store = store
        self._performance = performance
        self._requested = requested
        self._streams = streams
        self._journal = journal
        # What listeners know; nothing before there was a slot.
        held = store.held()
        made, used = {h.qc: h.generated for h in held}, {h.qc: h.used for h in held}
        self._reports = Reports(Totals(max(h.slot for h in held), made, used=used)) if held else None
        self._watch = Watch()

    def on_slot(self, slot: int) -> None:
        """A QC began a slot: there is something to report."""
        if self._reports is None:
            self._reports = Reports(Totals(slot - 1))

    def report_slot(self) -> None:
        """What admission control counts: made, asked for, taken, since the last report; and in stock."""
        if self._streams.controlled is None or self._reports is None:
            return  # what was made and asked for waits for somebody who wants to know
        held = self._store.held()
        slot = max((h.slot for h in held), default=0)
        now = Totals(
            slot, {h.qc: h.generated for h in held}, self._requested.totals(), {h.qc: h.used for h in held}
        )
        before = self._reports.since(now, self._streams.controllers)
        requested = {qc: n - before.requested.get(qc, 0) for qc, n in now.requested.items()}
        entries = [
            _figures(h.qc, h.generated - before.generated.get(h.qc, 0), requested.pop(h.qc, 0))
            | {"stored": str(h.stored), "used": str(max(0, h.used - before.used.get(h.qc, 0)))}
            for h in held
        ]
        entries += [_figures(qc, 0, n) for qc, n in requested.items() if n]
        since = max(0, min(before.slot, slot - 1))
        self._streams.notify_own("slot_report", {"since": str(since), "slot": str(slot), "qc": entries})

    def report_changes(self) -> None:
        """The standard's notifications of links and interfaces."""
        tree, config, streams = self._datastore.tree, self._config, self._streams
        state = self._performance.state(self._store.ttl_slots)
        figures_wanted = capability(tree, "link_stats_support")
        physical = {link["qkdl_id"]: qc for qc, link in qcs_in_use(tree, [n.qc for n in config.qcs]).items()}
        found = {k: v for k, v in link_states(tree, config, state).items() if k in physical}
        for kind, key in self._watch.changes(found):
            link, qc = found[key], physical[key]
            performance = link["qkdl_performance"]
            if kind == "status":
                status = link["qkdl_status"]
                silent = qc in state.qcs and not state.qcs[qc].alive
                if silent:
                    interface = [n.qc for n in config.qcs].index(qc) + 1
                    reason = self._why_silent(qc) or "no block has come for some slots"
                    streams.notify("sdqkdn_interface_down", {"qkd_interface": {"qkdi_id": interface, "reason": reason}})
                    streams.notify("sdqkdn_link_down", {"qkd_link": {"qkdl_id": key, "reason": reason}})
                severity = gs015.MINOR if status in (gs015.ACTIVE, gs015.PENDING) else gs015.MAJOR
                text = f"the link is {gs015.bare(status)}"
                entry = {"qkdl_id": key, "qkdl_status": status, "message": text, "severity": severity}
                streams.notify("alarm" if severity == gs015.MAJOR else "event", {"link": entry})
                self._journal.event("link_status", qc=qc, status=gs015.bare(status))
            elif not figures_wanted:
                continue
            elif kind == "performance":
                streams.notify(
                    "sdqkdn_link_perf_update", {"qkd_link": {"qkdl_id": key, "performance": dict(performance)}}
                )
            else:
                common = {m: performance[m] for m in ("expected_consumption", "skr", "eskr")}
                streams.notify("sdqkdn_link_overloaded", {"qkd_link": {"qkdl_id": key, "performance": common}})


def _figures(qc: str, generated: int, requested: int) -> dict[str, str]:
    return {"name": qc, "generated": str(max(0, generated)), "requested": str(requested)}
