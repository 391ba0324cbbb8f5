"""Mininet's command line with a few words more: `qkd status`, `qkd qcs`, `qkd sessions`, `qkd open A B`."""

from __future__ import annotations

from mininet.log import output

from testbed.errors import UserError
from testbed.network.emulation import Emulation
from testbed.operation import words
from testbed.operation.console import Console
from testbed.operation.operator import Operator
from testbed.operation.tables import table


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
