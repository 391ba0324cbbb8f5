"""Mininet's command line with a few words more: `qkd status`, `qkd links`, `qkd sessions`, `qkd open A B`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence

from mininet.cli import CLI
from mininet.log import output

from mtls.call import Reply, Unreachable
from testbed.emulation import Emulation
from testbed.plan import SaePlan

_HELP = """qkd status            nodes, switches, controller, processes
qkd links             fibres with their delay, QCs with rate and stock of key material
qkd sessions          key sessions with their path
qkd saes              applications, their nodes and their UUIDs
qkd open A B          application A opens a key session with B (names or UUIDs)
qkd close KSID        end a key session
"""


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows in columns as wide as needed, numbers to the right. PURE."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(r[i]) for r in [list(header), *cells]) for i in range(len(header))]
    numeric = [bool(cells) and all(r[i].replace(".", "", 1).isdigit() or r[i] == "-" for r in cells)
               for i in range(len(header))]  # fmt: skip

    def line(row: Sequence[str]) -> str:
        fitted = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True)]
        return "  ".join(fitted).rstrip()

    return "\n".join([line(list(header)), *(line(r) for r in cells)]) + "\n"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


class QkdCLI(CLI):
    """Mininet's CLI for a running emulation. Commands print an error in one line and go on."""

    prompt = "qkd-testbed> "

    def __init__(self, emulation: Emulation) -> None:
        self._emulation = emulation
        super().__init__(emulation.network.net)

    def do_qkd(self, line: str) -> None:
        """QKD commands; `qkd` alone lists them."""
        commands: dict[str, tuple[Callable[..., None], int]] = {
            "status": (self._status, 0), "links": (self._links, 0), "sessions": (self._sessions, 0),
            "saes": (self._saes, 0), "open": (self._open, 2), "close": (self._close, 1),
        }  # fmt: skip
        word, *arguments = line.split() or ["help"]
        if word not in commands or len(arguments) != commands[word][1]:
            output(_HELP)
            return
        try:
            commands[word][0](*arguments)
        except Unreachable as error:
            output(f"no answer: {error}\n")

    def do_EOF(self, line: str) -> bool:  # noqa: N802 - Mininet's name
        """End the run."""
        if sys.stdin.isatty():
            output("\n")
        return bool(self.do_exit(line))

    def _status(self) -> None:
        status = self._emulation.control_room.controller("GET", "/qkd/v1/status").body
        plan = self._emulation.plan
        output(f"run directory   {self._emulation.run.path}\n")
        output(f"switches        {len(status['switches'])} of {len(plan.switches)} connected\n")
        output(f"nodes           {len(status['nodes'])} of {len(plan.nodes)} registered\n")
        output(f"parameters      {', '.join(f'{k} {v}' for k, v in status['parameters'].items())}\n")
        dead = [p.name for p in self._emulation.dead()]
        output(f"processes       {'all alive' if not dead else 'DEAD: ' + ', '.join(dead)}\n")

    def _links(self) -> None:
        links = self._emulation.links
        output(link_table(self._emulation))
        found = self._emulation.control_room.controller("GET", "/qkd/v1/links").body["links"]
        rows = [
            (q["qc"], " - ".join(q["ends"]), q["generated_per_slot"], q["requested_per_slot"], q["stored_bytes"])
            for q in found
        ]
        if links:
            output("\n" + table(("QC", "between", "made B/s", "asked B/s", "stock B"), rows))

    def _sessions(self) -> None:
        sessions = self._emulation.control_room.controller("GET", "/qkd/v1/key_sessions").body["key_sessions"]
        rows = [
            (s["ksid"], self._name(s["master_sae"]), self._name(s["slave_sae"]), s["state"], s["mode"],
             " - ".join(s["path"] or ()))
            for s in sessions
        ]  # fmt: skip
        output(table(("KSID", "master", "slave", "state", "mode", "path"), rows) if rows else "no key sessions\n")

    def _saes(self) -> None:
        rows = [(s.name, s.node, s.id) for s in self._emulation.plan.saes]
        output(table(("application", "node", "SAE ID"), rows))

    def _open(self, master: str, slave: str) -> None:
        found = [self._find(master), self._find(slave)]
        if found[0] is None or found[1] is None:
            return
        reply: Reply = self._emulation.open_session(found[0], found[1]).result()
        if reply.ok:
            output(f"open: KSID {reply.body['ksid']}, path {' - '.join(reply.body['path'])}\n")
        else:
            output(f"not opened: {reply.message}\n")

    def _close(self, ksid: str) -> None:
        room = self._emulation.control_room
        sessions = room.controller("GET", "/qkd/v1/key_sessions").body["key_sessions"]
        master = next((self._emulation.plan.sae(s["master_sae"]) for s in sessions if s["ksid"] == ksid.lower()), None)
        if master is None:
            output(f"no key session {ksid!r}: 'qkd sessions' lists them\n")
            return
        # By its master, which then asks for no more keys; behind its back it would take the end for an error.
        reply = room.sae(master, "DELETE", f"/sae/v1/sessions/{ksid.lower()}").result()
        output("closed\n" if reply.ok else f"not closed: {reply.message}\n")

    def _find(self, name: str) -> SaePlan | None:
        sae = self._emulation.plan.sae(name)
        if sae is None:
            output(f"no application {name!r}: 'qkd saes' lists them\n")
        return sae

    def _name(self, sae_id: str) -> str:
        sae = self._emulation.plan.sae(sae_id)
        return sae.name if sae is not None else sae_id


def link_table(emulation: Emulation) -> str:
    """Configured and measured round-trip times side by side."""
    rows = [(m.name, m.configured_rtt_ms, m.measured_rtt_ms) for m in emulation.links]
    return table(("link", "configured RTT ms", "measured RTT ms"), rows)
