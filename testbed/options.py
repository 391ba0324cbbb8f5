"""Options that runs on real parts and in virtual time share, and how the values of options are read."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from decisions import user_policies
from decisions.parameters import ADMISSION, KEYS_AHEAD, MECHANISM, MODE, PATH_POLICY, TTL, Choice, parse_rate
from documents import plugged
from documents.checks import Malformed
from documents.plugged import PlugError
from scenario.topology_description import Topology, choice
from scenario.workload import Arrival, S, Workload, draw_pairs
from scenario.workload import arrivals as draw_arrivals
from testbed.errors import UserError
from testbed.planning.databases import DATABASES, HA, SINGLE
from testbed.planning.make import make_plan
from testbed.planning.plan import Plan

DEFAULT_SESSIONS = 8
CONTROLLERS = (SINGLE, HA)


def series(parser: argparse.ArgumentParser, seeds: int) -> None:
    """Add what a series in virtual time takes, of so many draws of sessions."""
    add = parser.add_argument
    add("--seeds", type=int, default=seeds, metavar="N", help=f"draws of sessions (default: {seeds})")
    add("--again", action="store_true", help="begin anew where a series was begun already; else it goes on")
    add("--dask", metavar="ADDRESS", help="on that scheduler's Dask cluster, tcp://HOST:PORT (default: all cores)")
    add("--out", type=Path, metavar="DIR", help="where results go (default: results/)")


def network(parser: argparse.ArgumentParser) -> None:
    """Add what describes a network, its parameters, and what is asked of it."""
    add = parser.add_argument
    add("--topology", default="poliqi", metavar="NAME|FILE", help="network: a name in topologies/, or a YAML or GraphML file (default: poliqi)")  # fmt: skip  # noqa: E501
    add("--mode", default=MODE.default, metavar=_metavar(MODE), help=f"{MODE.meaning} (default: {MODE.default})")
    add("--admission", metavar=_metavar(ADMISSION), default=ADMISSION.default, help=f"{ADMISSION.meaning}: eq1 as measured, reserve as declared (default: {ADMISSION.default})")  # fmt: skip  # noqa: E501
    add("--paths", metavar=_metavar(PATH_POLICY), default=PATH_POLICY.default, help=f"{PATH_POLICY.meaning} (default: {PATH_POLICY.default})")  # fmt: skip  # noqa: E501
    add("--mechanism", choices=MECHANISM.values, default=MECHANISM.default, help=f"{MECHANISM.meaning}, where nodes have modules to spare (default: {MECHANISM.default})")  # fmt: skip  # noqa: E501
    add("--ttl", type=parsed_by(TTL.parse), metavar="SLOTS", help=f"{TTL.meaning}, of 1 s each (default: {TTL.default}, or what the slowest QC needs)")  # fmt: skip  # noqa: E501
    add("--keys-ahead", type=parsed_by(KEYS_AHEAD.parse), default=KEYS_AHEAD.default, metavar="N", help=f"{KEYS_AHEAD.meaning} (default: {KEYS_AHEAD.default})")  # fmt: skip  # noqa: E501
    add("--sessions", type=whole, metavar="N", help=f"key sessions to open (default: {DEFAULT_SESSIONS} with --duration, else 0)")  # fmt: skip  # noqa: E501
    add("--apps", dest="sessions", type=whole, help=argparse.SUPPRESS)  # its name of earlier versions
    add("--workload", metavar="NAME|FILE", help="key sessions that come and go: a name in workloads/, or a YAML file (default: --sessions that stay)")  # fmt: skip  # noqa: E501
    add("--seed", type=whole, metavar="N", help="same workload and same QC output each time (not for secrets)")
    add("--qc-rate", type=parsed_by(parse_rate), metavar="LOW-HIGH", help="key material that every QC makes, in bytes a slot of 1 s")  # fmt: skip  # noqa: E501


def failing_over(parser: argparse.ArgumentParser) -> None:
    """Add which parts of a network on real parts are there twice; see `planned`."""
    add = parser.add_argument
    add("--database", choices=DATABASES, default=SINGLE, help=f"the private PostgreSQL: a single server, or with a standby that takes over (ha), for which commits do not wait (ha-async) (default: {SINGLE})")  # fmt: skip  # noqa: E501
    add("--controller", choices=CONTROLLERS, default=SINGLE, help=f"one SDN controller, or a second one that stands by and takes over when the first one is gone (default: {SINGLE})")  # fmt: skip  # noqa: E501


def planned(given: argparse.Namespace, topology: Topology) -> Plan:
    """The plan of `topology` with those parts twice; UserError, also if a network like that cannot have them."""
    return make_plan(topology, given.database, standby=given.controller == HA)


def parameters(given: argparse.Namespace, topology: Topology) -> tuple[dict[str, Any], dict[str, str]]:
    """The parameters of `topology` that were described; by name those that are a policy of the user's, FILE.py:NAME.

    UserError.
    """
    chosen, own = policies(given)
    ttl_slots = given.ttl or usual_ttl_slots(topology)
    others = {TTL.name: ttl_slots, KEYS_AHEAD.name: given.keys_ahead, MECHANISM.name: given.mechanism}
    return {**chosen, **others}, own


def usual_ttl_slots(topology: Topology) -> int:
    """The TTL of a network of which nobody says one: the paper's, or twice as long as a QC may bring nothing."""
    waits_s = [qc.model.longest_wait_s for qc, _, _ in topology.qcs() if qc.model is not None]
    return min(TTL.high, max(TTL.default, math.ceil(2 * max(waits_s, default=0.0))))


def policies(given: argparse.Namespace) -> tuple[dict[str, str], dict[str, str]]:
    """Mode, admission and path policy by their parameters' names, and those that are the user's; UserError."""
    words = {MODE.name: given.mode, ADMISSION.name: given.admission, PATH_POLICY.name: given.paths}
    own = {name: plugged.absolute(word) for name, word in words.items() if ":" in word}
    try:
        words |= user_policies.use(own)
    except PlugError as error:
        raise UserError(str(error)) from None
    for parameter, option in ((MODE, "--mode"), (ADMISSION, "--admission"), (PATH_POLICY, "--paths")):
        if words[parameter.name] not in parameter.values:
            hint = choice(words[parameter.name], parameter.values, "there are")
            raise UserError(f"{option} {words[parameter.name]}: {hint}; or FILE.py:NAME")
    return words, own


def _metavar(parameter: Choice) -> str:
    return f"{'|'.join(parameter.values)}|FILE.py:NAME"


def arrivals(
    given: argparse.Namespace, saes: Sequence[S], workload: Workload | None, seed: int, *, handful: int,
    length_s: float | None,
) -> list[Arrival[S]]:  # fmt: skip
    """The key sessions to open: those of a workload, else as many at once as were asked for, or `handful`; UserError.

    `length_s`: how long the latter last; None: they stay.
    """
    if workload is not None:
        if given.sessions is not None:
            raise UserError("--sessions and --workload: choose one; a workload says how many it has")
        return draw_arrivals(workload, saes, seed)
    number = handful if given.sessions is None else int(given.sessions)
    try:
        return [Arrival(0.0, master, slave, length_s) for master, slave in draw_pairs(saes, number, seed)]
    except ValueError as error:
        raise UserError(f"--sessions {number}: {error}") from None


def whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got {text!r}")
    return int(text)


def _number(text: str, what: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"expected {what} from {low:g} to {high:g}, got {text!r}")
    return value


def seconds(text: str) -> float:
    return _number(text, "seconds", 0.1, 10_000_000)


def milliseconds(text: str) -> float:
    return _number(text, "milliseconds", 0, 60_000)


def port(text: str) -> int:
    return int(_number(text, "a port", 1, 65535))


def parsed_by(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """`read`, for argparse."""

    def parse(text: str) -> Any:
        try:
            return read(text)
        except Malformed as error:
            raise argparse.ArgumentTypeError(f"expected {error.expected}") from None

    return parse
