"""Mininet's command line with a few words more: `qkd status`, `qkd qcs`, `qkd sessions`, `qkd open A B`."""

from __future__ import annotations

import functools
import textwrap
import time
from collections.abc import Callable, Mapping
from typing import Any

from mininet.log import output

from decisions.parameters import PARAMETERS
from mtls.credentials import Credentials
from mtls.identity import Identity, Role
from testbed.errors import UserError
from testbed.network.emulation import Emulation
from testbed.network.expose import FILE, LOOPBACK
from testbed.operation import fibre_commands
from testbed.operation.console import Console
from testbed.operation.desk import Desk, rate_of
from testbed.operation.tables import table
from testbed.planning.plan import AGENT_PORT, CONTROLLER_PORT, KME_PORT, OPERATOR, Plan, SaePlan
from testbed.stories import journals, svg, text
from testbed.stories.model import KEY, SESSION, NoStory

_Rows = list[tuple[str, str]]


def describe(
    plan: Plan, name: str, credentials: Callable[[Identity], Credentials], exposed: Mapping[str, Any] | None
) -> str:
    """What to know of whoever is called `name`: an SAE (by its ID, too), a node, or the operator.

    `exposed` is what expose.json says, if the run is exposed. If an SAE and a node share the name, both are described;
    empty if nobody is called so.
    """
    blocks: list[_Rows] = []
    sae = plan.sae(name)
    if sae is not None:
        blocks.append([*_sae(sae), *_files(credentials(sae.identity)), *_kme(plan, sae.node, exposed)])
    if name in plan.nodes:
        agent = _urls("agent", plan.url(name, AGENT_PORT), exposed["agents"][name] if exposed else None)
        files = _files(credentials(Identity(Role.NODE, name)))
        blocks.append([("node", name), *files, *_kme(plan, name, exposed), *agent])
    if name == OPERATOR.name:
        controller = _urls("controller", plan.url("ctl", CONTROLLER_PORT), exposed["controller"] if exposed else None)
        blocks.append([*_files(credentials(OPERATOR)), *controller])
    return "\n".join("".join(f"{what:<12} {value}\n" for what, value in block) for block in blocks)


def _sae(sae: SaePlan) -> _Rows:
    where = " (runs outside the testbed)" if sae.external else ""
    return [("SAE", sae.name + where), ("SAE ID", sae.id), ("node", sae.node)]


def _files(credentials: Credentials) -> _Rows:
    found = (("certificate", credentials.certificate), ("key", credentials.key), ("CA", credentials.ca))
    return [(what, str(path)) for what, path in found]


def _kme(plan: Plan, node: str, exposed: Mapping[str, Any] | None) -> _Rows:
    return _urls("KME", plan.url(node, KME_PORT), exposed["kmes"][node] if exposed else None)


def _urls(what: str, inside: str, outside: str | None) -> _Rows:
    rows = [(what, f"{inside} (in the emulated network)")]
    return [*rows, (what, f"{outside} (on this machine)")] if outside else rows


_SETTABLE = ", ".join(f"{p.name} {p.syntax}" for p in PARAMETERS.values())
_HELP = """qkd status            nodes, switches, controller, processes
qkd qcs               QCs with status, rate, error rate and stored key material
qkd fibres            fibres as they are shaped now
qkd fibre A B         the fibre between two datacenters: shape of both directions, whether it is lit
qkd fibre A B delay 20ms jitter 2ms loss 1% bandwidth 100mbit  change some of these, both ways ('none': no limit)
qkd fibre A -> B ...  the same for one direction; of several fibres take one by name: qkd fibre NAME [-> B] ...
qkd fibre A B measure|reset  delay, jitter, loss and bandwidth as they really are; back to the topology's shape
qkd sessions          key sessions with their path
qkd refusals          the last key sessions that were refused, and why
qkd saes              applications, their nodes and their IDs, and which run outside the testbed
qkd cert NAME         where certificate and key of an application, a node or the operator lie, and the URLs to call
qkd open A B          application A opens a key session with B (names or IDs)
qkd close KSID|A B    end a key session
qkd story             the last keys and key sessions of which a story can be told
qkd story ID          the story of a key, a key session (KSID) or a trace: who said what to whom, what was used where
qkd story A B         the story of the last key that application A asked for to share with B, or of its failure
qkd story A B session how their key session was opened, or why it was not
qkd capture A B       capture the fibre between two datacenters into the run directory; `qkd capture A B off` ends it
qkd set               what can be set, and how it is set now
qkd set NAME VALUE    SETTABLE
qkd set rate QC LOW-HIGH   bytes a slot that a QC makes (QC: a name from 'qkd qcs', or all)
qkd set generation QC on|off   whether a QC generates at all
qkd fault             what is broken now, and since when
qkd fault cut A B     cut the fibre between two datacenters, for traffic and for keys
qkd fault qc A B      have no key come of the QCs between them; traffic goes on
qkd fault device A B  cut the power of their devices, which say nothing until they are healed, and then start anew
qkd fault node A      kill a node; as well: 'qkd fault database', 'qkd fault controller'
qkd fault pause A     have a node sleep; its connections stay, and it answers nothing
qkd fault standby     kill the database, and have a standby in its place, which takes no writes until it is healed
qkd fault heal        heal everything; 'qkd fault heal cut A B', for one, heals that alone
""".replace("SETTABLE", textwrap.fill(_SETTABLE, 98).replace("\n", "\n" + " " * 22))
_FAULT_HELP = "".join(f"{line}\n" for line in _HELP.splitlines() if line.startswith("qkd fault "))


class QkdCLI(Console):
    """The command line of a running emulation."""

    prompt = "qkd-testbed> "

    def __init__(self, emulation: Emulation) -> None:
        self._emulation = emulation
        self._desk = Desk(
            emulation.plan, emulation.control_room, open_session=emulation.open_session, fibres=emulation.fibres,
            faults=emulation.faults,
        )  # fmt: skip
        super().__init__(emulation.network.net, emulation.run.path)

    def do_qkd(self, line: str) -> None:
        """QKD commands; `qkd` alone lists them."""
        commands: dict[tuple[str, int], Callable[..., None]] = {
            ("status", 0): self._status, ("qcs", 0): self._qcs, ("fibres", 0): self._fibres,
            ("links", 0): self._links, ("sessions", 0): self._sessions,
            ("refusals", 0): self._refusals, ("saes", 0): self._saes, ("cert", 1): self._cert,
            ("open", 2): self._open, ("close", 1): self._close, ("close", 2): self._close,
            ("set", 0): self._show, ("set", 2): self._set, ("set", 3): self._set_qc,
            **{("fault", n): self._fault for n in range(5)},
            ("story", 0): self._stories, ("story", 1): self._story,
            ("story", 2): self._story_of, ("story", 3): self._story_of,
            ("capture", 2): self._capture, ("capture", 3): self._capture,
        }  # fmt: skip
        word, *arguments = line.split() or ["help"]
        is_fibre = word in ("fibre", "link")  # the second of these is its name of earlier versions
        if not is_fibre and (word, len(arguments)) not in commands:
            output(_HELP)
            return
        try:
            if is_fibre:
                self._fibre(arguments)
            else:
                commands[word, len(arguments)](*arguments)
        except NoStory as error:
            output(f"{error}\n")

    def do_link(self, line: str) -> None:
        """Take the fibre between two datacenters (or switches) down or up: link A B down|up"""
        switches, words = self._emulation.plan.switches, line.split()
        if len(words) == 3 and {*words[:2]} <= {*switches}:
            line = " ".join([*(switches[w] for w in words[:2]), words[2]])
        super().do_link(line)

    def _fibre(self, words: list[str]) -> None:
        output(fibre_commands.obey(self._emulation.fibres, words) if words else _HELP)

    def _status(self) -> None:
        output(f"run directory   {self._emulation.run.path}\n")
        try:
            self._told_by_controller(self._desk.status())
        except UserError as error:
            output(f"controller      does not answer: {error}\n")
        if self._emulation.exposed is not None:
            output(f"exposed         on {LOOPBACK}; URLs and certificates: {self._emulation.run.path / FILE}\n")
        if broken := [fault.name for fault in self._emulation.faults.active()]:
            output(f"broken          {', '.join(broken)}\n")
        away = ", ".join(f"{name} {why}" for name, why in self._emulation.processes.away().items())
        output(f"processes       {away or 'all alive'}\n")

    def _told_by_controller(self, status: Mapping[str, Any]) -> None:
        plan = self._emulation.plan
        output(f"switches        {len(status['switches'])} of {len(plan.switches)} connected\n")
        output(f"controller      on {status['framework']}\n")
        output(f"fibres          {self._dark(status['ports_down']) or 'all lit'}\n")
        output(f"nodes           {len(status['nodes'])} of {len(plan.nodes)} reachable\n")
        output(f"parameters      {', '.join(f'{k} {v}' for k, v in status['parameters'].items())}\n")

    def _dark(self, ports: list[str]) -> str:
        """What the controller heard of ports that are down, by fibre."""
        found = [
            f"{p.link.name} dark at {' and '.join(dark)}"
            for p in self._emulation.plan.links
            if (dark := [port for port in (p.port_a, p.port_b) if port in ports])
        ]
        return ", ".join(found)

    def _links(self) -> None:
        """As in earlier versions: both."""
        self._fibres()
        output("\n")
        self._qcs()

    def _fibres(self) -> None:
        output(fibre_commands.shapes(self._emulation.fibres.all()))

    def _qcs(self) -> None:
        rows = [
            (q["qc"], " - ".join(q["ends"]), q["status"] if q["enabled"] else "disabled", q["generated_per_slot"],
             q["requested_per_slot"], q["stored_bytes"], q["qber_percent"])
            for q in self._desk.qcs()
        ]  # fmt: skip
        header = ("QC", "between", "status", "generated B/slot", "requested B/slot", "stored B", "QBER %")
        output(table(header, rows) if rows else "no QCs\n")

    def _sessions(self) -> None:
        name = self._desk.name
        rows = [
            (s["ksid"], name(s["master_sae"]), name(s["slave_sae"]), _state(s), s["mode"],
             "implicitly" if s["implicit"] else "explicitly", " - ".join(s["path"] or ()))
            for s in self._desk.sessions()
        ]  # fmt: skip
        header = ("KSID", "master", "slave", "state", "mode", "opened", "path")
        output(table(header, rows) if rows else "no key sessions\n")

    def _refusals(self) -> None:
        name = self._desk.name
        rows = [
            (time.strftime("%H:%M:%S", time.localtime(r["time"])), name(r["master_sae"]), name(r["slave_sae"]),
             r["message"])
            for r in self._desk.refusals()
        ]  # fmt: skip
        output(table(("time", "master", "slave", "why"), rows) if rows else "no refusals\n")

    def _saes(self) -> None:
        rows = [
            (s.name, s.node, s.id, "outside" if s.external else "testbed") for s in self._emulation.plan.saes
        ]
        output(table(("application", "node", "SAE ID", "runs in"), rows))

    def _cert(self, name: str) -> None:
        emulation = self._emulation
        found = describe(emulation.plan, name, emulation.credentials, emulation.exposed)
        output(found or f"no application or node {name!r}, nor 'operator': 'qkd saes' lists the applications\n")

    def _open(self, master: str, slave: str) -> None:
        opened = self._desk.open(master, slave)
        output(f"open: KSID {opened.ksid}, path {' - '.join(opened.path)}\n")

    def _close(self, *which: str) -> None:
        self._desk.close(which[0] if len(which) == 1 else self._desk.ksid(*which))
        output("closed\n")

    def _show(self) -> None:
        output(table(("parameter", "value"), sorted(self._desk.parameters().items())))

    def _set(self, name: str, value: str) -> None:
        output(self._desk.set_parameter(name, value) + "\n")

    def _set_qc(self, what: str, qc: str, value: str) -> None:
        change: Callable[[str], str]
        if what == "rate":
            low, high = rate_of(value)
            change = functools.partial(self._desk.set_rate, low=low, high=high)
        elif what == "generation" and value in ("on", "off"):
            change = functools.partial(self._desk.set_generation, enabled=value == "on")
        else:
            output(_HELP)
            return
        for name in self._desk.qc_names() if qc == "all" else [qc]:
            try:
                output(f"{change(name)}\n")
            except UserError as error:
                output(f"{error}\n")

    def _fault(self, word: str = "", *arguments: str) -> None:
        faults = self._emulation.faults
        if word == "heal":
            healed = faults.heal(*arguments)
            output("".join(f"healed: {fault.name}\n" for fault in healed) or "nothing is broken\n")
        elif word:
            output(f"broken: {faults.inject(word, *arguments).name}\n")
        else:
            rows = [(f.name, time.strftime("%H:%M:%S", time.localtime(f.since))) for f in faults.active()]
            output(table(("broken", "since"), rows) if rows else f"nothing is broken\n{_FAULT_HELP}")

    def _stories(self) -> None:
        output(text.index(journals.latest(self._emulation.run.path)))

    def _story(self, ident: str) -> None:
        story = journals.read(self._emulation.run.path, ident)
        path = self._emulation.run.make("stories") / f"{story.ident}.svg"
        path.write_text(svg.draw(story))
        output(f"{text.draw(story)}as a picture: {path}\n")

    def _story_of(self, master: str, slave: str, what: str = KEY) -> None:
        if what not in (KEY, SESSION):
            output(_HELP)
            return
        pair = (self._desk.sae(master).id, self._desk.sae(slave).id)
        found = journals.last(self._emulation.run.path, *pair, what)
        if found is None:
            raise NoStory(f"{master} and {slave} have no {what} to tell of: 'qkd story' lists what there is")
        self._story(found.ident)

    def _capture(self, a: str, b: str, end: str = "") -> None:
        captures = self._emulation.captures
        if end == "off":
            output(f"captured: {captures.stop(a, b)}\n")
        elif end:
            output(_HELP)
        else:
            output(f"capturing into {captures.start(a, b)}, which holds TLS: who talks to whom, no key\n")


def _state(session: Mapping[str, Any]) -> str:
    """An open session without a path is not what one takes for open."""
    return "interrupted" if session["interruption"] else str(session["state"])


def link_table(emulation: Emulation) -> str:
    """Configured and measured round-trip times side by side."""
    rows = [(m.name, m.configured_rtt_ms, m.measured_rtt_ms) for m in emulation.links]
    return table(("link", "configured RTT ms", "measured RTT ms"), rows)
