"""Mininet's command line, made fit for networks that must live on: whatever is typed, nothing but `exit` ends the run.

It has a few words more: `qkd status`, `qkd qcs`, `qkd sessions`, `qkd open A B`.

What Mininet offers works here or is refused with the reason. Differences that one notices: names with a hyphen are
names; the keyboard goes to a command on a host only behind `noecho`, so that pasted lines wait for their turn; iperf
needs no telnet; dpctl speaks OpenFlow 1.3.
"""

from __future__ import annotations

import codecs
import contextlib
import logging
import os
import re
import select
import shlex
import subprocess
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mininet.cli import CLI
from mininet.log import output
from mininet.node import Node

from telemetry import bugs
from testbed.errors import Terminated, UserError
from testbed.network.emulation import Emulation
from testbed.operation import words
from testbed.operation.operator import Operator
from testbed.operation.tables import table

_log = logging.getLogger(__name__)
_IPERF_PORT = 5001
_IPERF_S = 3
# For a server that does not begin to listen, and for a client that hears nothing more.
_IPERF_LISTENS_S, _IPERF_ENDS_S = 5.0, 15.0
_RATE = re.compile(r"[\d.]+ [KMG]?bits/sec")
_LOOK_MS = 500
_DEEPEST = 10
# A shell that is told to end takes its host's namespace along.
_ENDS_A_SHELL = frozenset(("exit", "logout", "exec"))


class Console(CLI):
    """Mininet's CLI of `net`, in the run of directory `run`. An error is a line, and it goes on."""

    identchars = f"{CLI.identchars}-"  # names of hosts are DNS labels

    def __init__(self, net: Any, run: Path) -> None:
        self._run = run
        self._typing = False  # whether the keyboard goes to a host's command
        self._depth = 0  # of files that read one another
        for node in net.values():
            node.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")  # what a command says may be no text
        super().__init__(net)

    def onecmd(self, line: str) -> bool:
        """Obey `line`; whether the run is to end."""
        try:
            return bool(super().onecmd(line))
        except UserError as refusal:
            output(f"{refusal}\n")
        except Terminated:
            raise
        except SystemExit:  # `py exit()`
            return True
        except Exception as error:
            bugs.report(_log, f"the command {line.partition(' ')[0]!r}", error)
            if scarce := bugs.refused(error):
                output(f"the machine refuses: {scarce}\n")
            else:
                output("this command met a bug of ours; the network goes on, the traceback is in the run's log\n")
        return False

    def default(self, line: str) -> None:
        """A host's name and a command to run there; names of hosts in it stand for their addresses."""
        name, command, _ = self.parseline(line)
        if name not in self.mn:
            raise UserError(f"no command or host {line.split(maxsplit=1)[0]!r}: see 'help' and 'nodes'")
        words = command.split(" ")
        if not command:
            raise UserError(f"expected a command after {name}")
        if words[0] in _ENDS_A_SHELL:
            raise UserError(f"{name} {words[0]}: the host would end with its shell")
        node = self.mn[name]
        if node.shell is None or node.shell.poll() is not None:
            raise UserError(f"the shell of {name} has ended: it takes no more commands")
        node.sendCmd(" ".join([words[0], *(self._address(word) for word in words[1:])]))
        self.waitForNode(node)

    def waitForNode(self, node: Node) -> None:  # noqa: N802 - Mininet's name
        """Print what a host's command says, until it ends. Ctrl-C interrupts the command."""
        poll, host = select.poll(), node.stdout.fileno()
        poll.register(host, select.POLLIN)
        if self._typing:
            poll.register(self.stdin, select.POLLIN)
        while node.waiting:
            try:
                found = [fd for fd, _ in poll.poll(_LOOK_MS)]
                if host in found:
                    output(node.monitor())
                elif found:
                    node.write(os.read(self.stdin.fileno(), 1024).decode(errors="replace"))
                elif node.shell.poll() is not None:
                    node.waiting = False
            except KeyboardInterrupt:
                node.sendInt()

    def do_noecho(self, line: str) -> None:
        """Run an interactive command on a host, with the keyboard in its hands: noecho HOST COMMAND"""
        if not self.isatty():
            self.default(line)
            return
        before = termios.tcgetattr(self.stdin)
        self._typing = True
        try:
            tty.setcbreak(self.stdin)  # no echo, and every key at once
            self.default(line)
        finally:
            self._typing = False
            termios.tcsetattr(self.stdin, termios.TCSADRAIN, before)

    def do_sh(self, line: str) -> None:
        """Run a command of the machine: sh COMMAND"""
        # Commands that come by a pipe are for us, not for what they start.
        stdin = None if self.isatty() else subprocess.DEVNULL
        with contextlib.suppress(KeyboardInterrupt):
            subprocess.call(line, shell=True, stdin=stdin)  # noqa: S602 - the user's own shell command

    def do_source(self, line: str) -> bool:
        """Obey the commands in a file: source FILE"""
        words = line.split()
        if len(words) != 1:
            raise UserError("expected source FILE")
        if self._depth == _DEEPEST:
            raise UserError(f"source {words[0]}: more than {_DEEPEST} files that read one another")
        try:
            commands = Path(words[0]).read_text().splitlines()
        except OSError as refused:
            raise UserError(f"source {words[0]}: {refused.strerror}") from None
        except UnicodeDecodeError:
            raise UserError(f"source {words[0]}: expected a text file") from None
        self._depth += 1
        try:
            return any(self.onecmd(self.precmd(command)) for command in commands)
        finally:
            self._depth -= 1

    def do_time(self, line: str) -> bool:
        """How long a command takes: time COMMAND"""
        start = time.monotonic()
        ends = self.onecmd(line)
        output(f"*** Elapsed time: {time.monotonic() - start:.6f} s\n")
        return ends

    def do_dpctl(self, line: str) -> None:
        """Run a command of ovs-ofctl on all switches: dpctl COMMAND [ARGUMENTS]"""
        command, _, arguments = line.partition(" ")
        if not command:
            raise UserError("expected dpctl COMMAND [ARGUMENTS], such as dpctl dump-flows")
        for switch in self.mn.switches:
            output(f"*** {switch.name} {'-' * 72}\n")
            output(switch.cmd("ovs-ofctl", "-O", "OpenFlow13", command, switch.name, arguments))

    def do_pingall(self, line: str) -> None:
        """Ping between all hosts, at most so many seconds a ping: pingall [SECONDS]"""
        if line and not (line.isascii() and line.isdigit() and int(line)):
            raise UserError(f"pingall: expected whole seconds from 1, got {line!r}")
        super().do_pingall(line)

    def do_iperf(self, line: str) -> None:
        """Measure TCP bandwidth between two hosts with iperf: iperf [CLIENT SERVER]"""
        words = line.split()
        if len(words) not in (0, 2):
            raise UserError("expected iperf, or iperf CLIENT SERVER")
        self._iperf(words)

    def do_iperfudp(self, line: str) -> None:
        """Send UDP from one host to another with iperf: iperfudp [BANDWIDTH CLIENT SERVER], such as 10M"""
        words = line.split()
        if len(words) not in (0, 3) or (words and not re.fullmatch(r"\d+[kKmMgG]?", words[0])):
            raise UserError("expected iperfudp, or iperfudp BANDWIDTH CLIENT SERVER, with a bandwidth such as 10M")
        self._iperf(words[1:], "-u", "-b", words[0] if words else "10M")

    def do_switch(self, _line: str) -> None:
        """Not offered here: a switch that starts anew has links of another shape."""
        raise UserError("switch: a switch that starts anew has unshaped links; cut fibres instead: 'qkd fault cut A B'")

    def do_xterm(self, line: str, term: str = "xterm") -> None:
        """Not offered here: hosts see no display."""
        name = next(iter(line.split()), self.mn.hosts[0].name)
        if name not in self.mn:
            raise UserError(f"{term}: no host {name!r}: 'nodes' lists them")
        enter = f"sudo nsenter -t $(cat {shlex.quote(str(self._run / 'init.pid'))}) -n -m"
        way = f"{enter} mnexec -a {self.mn[name].pid} bash"
        raise UserError(f"{term}: hosts see no display; type in another terminal for a shell on {name}: {way}")

    def do_gterm(self, line: str) -> None:
        """Not offered here: hosts see no display."""
        self.do_xterm(line, "gterm")

    def do_x(self, line: str) -> None:
        """Not offered here: hosts see no display."""
        self.do_xterm(line, "x")

    def do_EOF(self, line: str) -> bool:  # noqa: N802 - Mininet's name
        """End the run."""
        if sys.stdin.isatty():
            output("\n")
        return bool(self.do_exit(line))

    helpStr = (  # noqa: N815 - Mininet's name
        "A host's name runs a command there, and names of hosts in it stand for their addresses:\n"
        "  london ping -c 3 paris\n"
        "Behind noecho the command has the keyboard, and a host may be called like a command of this list:\n"
        "  noecho london python3\n"
    )

    def _address(self, word: str) -> str:
        """The address of the host that `word` names, or the word."""
        interface = self.mn[word].defaultIntf() if word in self.mn else None
        return str((interface and interface.updateIP()) or word)

    def _iperf(self, names: Sequence[str], *options: str) -> None:
        hosts = {host.name: host for host in self.mn.hosts}
        for name in names:
            if name not in hosts:
                raise UserError(f"iperf: no host {name!r}: there are {', '.join(hosts)}")
        client, server = (hosts[name] for name in names) if names else (self.mn.hosts[0], self.mn.hosts[-1])
        if client is server:
            raise UserError("iperf: expected two different hosts")
        kind = "UDP" if options else "TCP"
        output(f"*** {kind} bandwidth from {client.name} to {server.name}, {_IPERF_S} s\n")
        listen = ["iperf", "-s", "-p", str(_IPERF_PORT), *options[:1]]
        send = ["iperf", "-c", server.IP(), "-p", str(_IPERF_PORT), "-t", str(_IPERF_S), *options]
        with _on(server, listen) as serving:
            _await_listener(server, udp=bool(options))
            with _on(client, send) as sending:
                try:
                    said = sending.communicate(timeout=_IPERF_S + _IPERF_ENDS_S)[0]
                except subprocess.TimeoutExpired:
                    said = ""
            serving.terminate()
            heard = serving.communicate()[0]
        for who, told in ((client.name, said), (server.name, heard)):
            rates = _RATE.findall(told)
            output(f"{who:<16}{rates[-1] if rates else 'no bandwidth: nothing came through'}\n")


@contextlib.contextmanager
def _on(host: Node, command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """`command` running on `host`, killed at the end if it still runs."""
    enter = ["mnexec", "-a", str(host.pid)]
    with subprocess.Popen(
        [*enter, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", start_new_session=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def _await_listener(host: Node, *, udp: bool) -> None:
    look = ["mnexec", "-a", str(host.pid), "ss", "-Hln", "-u" if udp else "-t", f"sport = :{_IPERF_PORT}"]
    deadline = time.monotonic() + _IPERF_LISTENS_S
    while not subprocess.run(look, capture_output=True, check=False).stdout:
        if time.monotonic() > deadline:
            raise UserError("iperf does not listen: is it installed? 'apt-get install iperf'")
        time.sleep(0.05)


class QkdCLI(Console):
    """The command line of a running emulation, whose requests `operator` does."""

    prompt = "qkd-testbed> "

    def __init__(self, emulation: Emulation, operator: Operator) -> None:
        self._switches = emulation.plan.switches
        self._operator = operator
        super().__init__(emulation.network.net, emulation.run.path)

    def do_qkd(self, line: str) -> None:
        """QKD commands; `qkd` alone lists them."""
        output(words.obey(line.split(), self._operator.do))

    def complete_qkd(self, text: str, line: str, _begin: int, end: int) -> list[str]:
        """What may stand behind what is typed already."""
        typed = line[:end].split(" ")[1:]
        try:
            found = words.completions([word for word in typed[:-1] if word] + typed[-1:], self._operator.do)
        except UserError:
            return []
        # Names have hyphens, at which readline begins a new word.
        skip = len(typed[-1]) - len(text)
        return [name[skip:] for name in found]

    def do_link(self, line: str) -> None:
        """Take the fibre between two datacenters (or switches) down or up: link A B down|up"""
        typed = line.split()
        if len(typed) == 3 and {*typed[:2]} <= {*self._switches}:
            line = " ".join([*(self._switches[word] for word in typed[:2]), typed[2]])
        super().do_link(line)


def link_table(emulation: Emulation) -> str:
    """Configured and measured round-trip times side by side."""
    rows = [(m.name, m.configured_rtt_ms, m.measured_rtt_ms) for m in emulation.links]
    return table(("link", "configured RTT ms", "measured RTT ms"), rows)
