"""Watches a running network: asks controller and nodes, follows the events, and keeps the latest snapshot.

All of it by requests of the operator's interface, which any other program could make, too. Everybody who is asked has a
thread, so that one who does not answer holds up nobody. One watch serves all pages, and asks no more often when many
look at it.
"""

from __future__ import annotations

import collections
import functools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from scenario.shape import MEMBERS, parse_shape
from telemetry import bugs
from testbed.dashboard.collected.history import History
from testbed.dashboard.collected.snapshot import EVENTS, Curves, Event, FibreNow, Heard, Snapshot, Tally, Totals
from testbed.dashboard.collected.timeline import EVENTS as HAPPENINGS
from testbed.dashboard.collected.timeline import Timeline
from testbed.dashboard.views.selection import WHOLE
from testbed.dashboard.views.view_map import draw
from testbed.operation.desk import NotDone
from testbed.planning.fault import Fault
from testbed.planning.plan import Plan

Request = Callable[..., Any]
_log = logging.getLogger(__name__)
# A cut must show within two seconds, page included.
_LOOK_S = 0.5
# A slot lasts as long: nothing that is asked for changes faster.
_ASK_S = 1.0
# In large networks the nodes are asked in turns, so many a second.
_NODES_A_SECOND = 15


class Watch:
    """Looks at the network of `plan` by requests of the operator's interface: `request` does those that do not stream,
    and `stream` gives the events of one that does."""

    def __init__(self, plan: Plan, request: Request, stream: Callable[..., Iterable[Event]]) -> None:
        self.latest = Snapshot()
        self.history = History()
        self._plan = plan
        self._request = request
        self._stream = stream
        self._events: collections.deque[Event] = collections.deque()  # that are still to be counted
        self._curves = Curves()
        nodes = {sae.name: sae.node for sae in (*plan.saes, *plan.gateways.values())}
        self._tally = Tally(lambda sae: nodes.get(sae, ""))
        self._timeline = Timeline(plan)
        self._stop = threading.Event()
        every_s = max(_ASK_S, len(plan.nodes) / _NODES_A_SECOND)
        self._controller = _Source(lambda: _ask_controller(request), _ASK_S, self._stop)
        self._nodes = {n: _Source(functools.partial(request, "node", name=n), every_s, self._stop) for n in plan.nodes}
        self._qcs: list[str] = request("names")["qcs"]
        self._thread = bugs.watched_thread(self._run, name="watch", stopped=self._stop.is_set)
        self._following = bugs.watched_thread(self._follow, name="events", stopped=self._stop.is_set)

    def start(self) -> None:
        """Begin to look."""
        for source in (self._controller, *self._nodes.values()):
            source.start()
        self._following.start()
        self._thread.start()

    def stop(self) -> None:
        """Look no more. The events end when whoever gives them closes them."""
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        """All events since the beginning of the run."""
        for event in self._stream("follow", names=sorted(EVENTS | HAPPENINGS), since=0.0):
            self._events.append(event)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._look()
            except Exception as error:  # the page shows that it is late; the next look may go better
                bugs.report(_log, "looking at the network", error)
            self._stop.wait(_LOOK_S)

    def _look(self) -> None:
        while self._events:
            event = self._events.popleft()
            self._tally.take(event)
            self._timeline.take(event)
        now = time.time()
        before, happenings = self.latest.happenings, self._timeline.latest(now)
        nodes = {name: source.heard() for name, source in self._nodes.items()}
        for name, heard in nodes.items():
            for qc in (heard.answer or {}).get("qcs", ()):
                self._curves.take(name, qc["qc"], Totals.of(qc))
        self.latest = Snapshot(
            number=self.latest.number + 1,
            time=now,
            controller=self._controller.heard(),
            nodes=nodes,
            fibres={fibre["name"]: _now(fibre) for fibre in self._request("fibres")},
            faults=[Fault(f["kind"], tuple(f["where"]), f["since"], f["fraction"]) for f in self._request("faults")],
            curves={qc: self._curves.of(qc) for qc in self._qcs},
            figures=self._tally.figures(),
            away=self._request("processes"),
            happenings=happenings,
        )
        self.history.add(now, draw(self._plan, self.latest, WHOLE), happened=happenings != before)


class _Source:
    """Somebody who is asked every `every_s` seconds, and what was last answered."""

    def __init__(self, ask: Callable[[], Mapping[str, Any]], every_s: float, stop: threading.Event) -> None:
        self._ask = ask
        self._every_s = every_s
        self._stop = stop
        self._answer: Mapping[str, Any] | None = None
        self._problem = ""
        self._heard_at = time.monotonic()
        self._thread = bugs.watched_thread(self._run, name="source", stopped=stop.is_set)

    def start(self) -> None:
        self._thread.start()

    def heard(self) -> Heard:
        silent_s = time.monotonic() - self._heard_at
        return Heard(self._answer, silent_s, self._problem)

    def _run(self) -> None:
        while not self._stop.is_set():
            asked = time.monotonic()
            try:
                self._answer = self._ask()
                self._heard_at, self._problem = time.monotonic(), ""
            except NotDone as error:
                self._problem = str(error)
            except Exception as error:
                if self._stop.is_set():  # its room is closed
                    return
                bugs.report(_log, "asking for the live view", error)
                self._problem = bugs.MARK
            self._stop.wait(max(0.0, asked + self._every_s - time.monotonic()))


def _ask_controller(request: Request) -> dict[str, Any]:
    return {
        "status": request("controller"), "qcs": request("qcs"), "sessions": request("sessions"),
        "refusals": request("refusals"),
    }  # fmt: skip


def _now(fibre: Mapping[str, Any]) -> FibreNow:
    there, back = (parse_shape({name: d[name] for name in MEMBERS}, "") for d in fibre["directions"])
    return FibreNow(fibre["lit"], (there, back))
