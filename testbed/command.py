"""`python testbed/run.py`: options, checks, one run, its summary."""

from __future__ import annotations

import argparse
import datetime
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from decisions.parameters import ADMISSION, KEYS_AHEAD, MODE, TTL, parse_rate
from decisions.rekey import GO_ON
from documents.checks import Malformed
from scenario.topology import TopologyError, load
from testbed.dashboard.address import USUAL_PORT
from testbed.errors import UserError
from testbed.machine.isolation import run_isolated, undisturbed
from testbed.machine.run_directory import new_run_id, open_run_directory, point_latest
from testbed.machine.tools import FRAMEWORKS, check_tools, clean_environment, python_for
from testbed.network.expose import ANY_PORT
from testbed.network.shared_database import complete_url, members, open_user_database
from testbed.network.workload_player import lasts_s
from testbed.planning.capacity import doubt, needs, reserve
from testbed.planning.plan import Plan, make_plan
from testbed.planning.workload import Arrival, Workload, draw_pairs, possible_pairs
from testbed.planning.workload import arrivals as draw_arrivals
from testbed.planning.workload import load as load_workload
from testbed.session import Dashboard, Options, run
from testbed.virtual_machine import vm

_ROOT = Path(__file__).resolve().parent.parent
_TOPOLOGIES = _ROOT / "topologies"
_RUNS = _ROOT / "runs"
_WORKLOADS = _ROOT / "workloads"
_UNASKED: object = object()
_DEFAULT_SESSIONS = 8
# Sessions that a user opens stay until he closes them: one whose path is down for a while goes on when it is up again.
_STEADFAST = {"on_key_failure": GO_ON}
# Between the end of the last session of a workload and that of the run.
_LAST_WORDS_S = 1.0


def main(arguments: list[str]) -> int:
    """Run the testbed as `arguments` say; the exit status."""
    try:
        if arguments[:1] == ["experiment"]:
            return _experiment(arguments[1:])
        given = _parser().parse_args(arguments)
        return _in_vm(given, arguments) if given.vm else _main(given)
    except (UserError, TopologyError) as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _experiment(arguments: list[str]) -> int:
    # Where matplotlib keeps what it knows of fonts; else that would be in root's home.
    os.environ.setdefault("MPLCONFIGDIR", str(_ROOT / ".venv" / "matplotlib"))
    from testbed.experiments import command  # matplotlib and scipy, which a run does without

    return command.main(arguments, _prepare)


def _in_vm(given: argparse.Namespace, arguments: list[str]) -> int:
    """The same in a virtual machine."""
    if given.expose is not None or given.shared_db is not None or given.dashboard is not _UNASKED:
        text = "--vm goes without --expose, --shared-db and --dashboard"
        raise UserError(f"{text}: a virtual machine has no network to the outside")
    directory = (given.run_dir or _RUNS / new_run_id(datetime.datetime.now(datetime.UTC))).absolute()
    status = vm.run([*arguments, "--no-dashboard"], python=Path(sys.executable), root=_ROOT, run_directory=directory)
    if given.run_dir is None:
        point_latest(_RUNS, directory)
    return status


def _prepare() -> None:
    """What everything needs that makes networks; UserError."""
    if os.geteuid() != 0:
        raise UserError("needs root, because it makes network namespaces: sudo python testbed/run.py")
    os.umask(0o022)
    clean_environment()
    check_tools()


def _main(given: argparse.Namespace) -> int:
    # Before the environment is cleaned of what libpq reads there.
    database_url = None if given.shared_db is None else complete_url(given.shared_db)
    _prepare()
    topology = load(given.topology, _TOPOLOGIES).with_overrides(delay_ms=given.delay, qc_rate=given.qc_rate)
    plan = make_plan(topology)
    seed = secrets.randbelow(1 << 31) if given.seed is None else given.seed
    workload = None if given.workload is None else load_workload(given.workload, _WORKLOADS)
    arriving = _arrivals(given, plan, workload, seed)
    duration_s = given.duration
    if duration_s is None and workload is not None and given.no_cli:
        duration_s = lasts_s(arriving) + _LAST_WORDS_S
    options = Options(
        parameters={
            "mode": given.mode, "ttl_slots": given.ttl, "keys_ahead": given.keys_ahead, "admission": given.admission,
        },
        arrivals=arriving,
        habits=_STEADFAST if workload is None else workload.habits,
        duration_s=duration_s,
        seed=seed,
        workload=None if workload is None else workload.name,
        seeded_qcs=given.seed is not None,
        cli=not given.no_cli and given.duration is None,
        expose=given.expose,
        controller_python=python_for(given.framework),
        dashboard=_dashboard(given),
    )
    if given.no_cli and duration_s is None:
        raise UserError("--no-cli needs --duration or --workload: otherwise nothing would ever end the run")
    options.check(plan)
    reserve(plan)
    if said := doubt(plan):
        print(f"run.py: {said}", file=sys.stderr, flush=True)
    directory = open_run_directory(given.run_dir, _RUNS)
    database = None
    try:
        if database_url is not None:
            schema = f"qkd_{directory.id.replace('-', '_')}"
            connections = needs(plan).fewest_connections
            database = open_user_database(database_url, schema, members(plan), connections=connections)
        return run_isolated(
            lambda outside: run(plan, directory, options, outside=outside, user_database=database),
            pid_file=directory.path / "init.pid",
            crash_log=directory.path / "crash.log",
        )
    finally:
        with undisturbed():
            if database is not None:
                database.drop()
            directory.erase_secrets()


def _arrivals(given: argparse.Namespace, plan: Plan, workload: Workload | None, seed: int) -> list[Arrival]:
    """The key sessions to open: those of a workload, else a number of them at once that stay."""
    if workload is None:
        number = _sessions(given, plan)
        try:
            return [Arrival(0.0, master, slave) for master, slave in draw_pairs(plan.saes, number, seed)]
        except ValueError as error:
            raise UserError(f"--sessions {number}: {error}") from None
    if given.sessions is not None:
        raise UserError("--sessions and --workload: choose one; a workload says how many it has")
    return draw_arrivals(workload, plan.saes, seed)


def _dashboard(given: argparse.Namespace) -> Dashboard:
    """Where the page is to be; a run with a command line has one unless told otherwise."""
    asked = given.dashboard is not _UNASKED
    if asked and given.no_dashboard:
        raise UserError("--dashboard and --no-dashboard: choose one")
    interactive = given.duration is None and not given.no_cli
    return Dashboard(on=(asked or interactive) and not given.no_dashboard, port=given.dashboard if asked else None)


def _sessions(given: argparse.Namespace, plan: Plan) -> int:
    """Key sessions to open: as asked, else a handful for a run of a given length, none where they can be typed."""
    if given.sessions is not None:
        return int(given.sessions)
    if given.duration is None:
        return 0
    return min(_DEFAULT_SESSIONS, len(plan.applications), len(possible_pairs(plan.saes)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run.py",
        description="An emulated QKD network: nodes, controller and applications on Mininet. Needs root.",
        epilog="Without --duration you get Mininet's command line with the network running; try 'qkd'."
        " 'run.py experiment --help' tells of experiments.",
    )
    add = parser.add_argument
    add("--topology", default="poliqi", metavar="NAME|FILE", help="network: a name in topologies/, or a YAML or GraphML file (default: poliqi)")  # fmt: skip  # noqa: E501
    add("--mode", choices=MODE.values, default=MODE.default, help=f"{MODE.meaning} (default: {MODE.default})")
    add("--admission", choices=ADMISSION.values, default=ADMISSION.default, help=f"{ADMISSION.meaning}: eq1 as measured, reserve as declared (default: {ADMISSION.default})")  # fmt: skip  # noqa: E501
    add("--ttl", type=_as(TTL.parse), default=TTL.default, metavar="SLOTS", help=f"{TTL.meaning}, of 1 s each (default: {TTL.default})")  # fmt: skip  # noqa: E501
    add("--keys-ahead", type=_as(KEYS_AHEAD.parse), default=KEYS_AHEAD.default, metavar="N", help=f"{KEYS_AHEAD.meaning} (default: {KEYS_AHEAD.default})")  # fmt: skip  # noqa: E501
    add("--sessions", type=_whole, metavar="N", help=f"key sessions to open (default: {_DEFAULT_SESSIONS} with --duration, else 0)")  # fmt: skip  # noqa: E501
    add("--apps", dest="sessions", type=_whole, help=argparse.SUPPRESS)  # its name of earlier versions
    add("--workload", metavar="NAME|FILE", help="key sessions that come and go: a name in workloads/, or a YAML file (default: --sessions that stay)")  # fmt: skip  # noqa: E501
    add("--duration", type=_seconds, metavar="S", help="end after S seconds of exchanging keys")
    add("--seed", type=_whole, metavar="N", help="same workload and same QC output each time (not for secrets)")
    add("--delay", type=_milliseconds, metavar="MS", help="one-way delay of every link, in milliseconds")
    add("--qc-rate", type=_as(parse_rate), metavar="LOW-HIGH", help="key material that every QC makes, in bytes a slot of 1 s")  # fmt: skip  # noqa: E501
    add("--run-dir", type=Path, metavar="DIR", help="where logs and results go (default: a new folder in runs/)")
    add("--shared-db", metavar="URL", help="use this PostgreSQL in place of a private one")
    add("--expose", nargs="?", const=ANY_PORT, type=_port, metavar="PORT", help="publish controller, KMEs and agents on 127.0.0.1, at ports from PORT on (default: whatever is free); see docs/client.md")  # fmt: skip  # noqa: E501
    add("--vm", action=argparse.BooleanOptionalAction, default=False, help="run all of it in user-mode Linux: needs no root, is slow")  # fmt: skip  # noqa: E501
    add("--framework", choices=FRAMEWORKS, default=FRAMEWORKS[0], help="what the controller speaks OpenFlow with: os-ken, or Ryu 4.34 in an environment of its own (default: os-ken)")  # fmt: skip  # noqa: E501
    add("--dashboard", nargs="?", const=None, default=_UNASKED, type=_port, metavar="PORT", help=f"show the network on a page at 127.0.0.1:PORT (default: {USUAL_PORT}, or whatever is free; on with the command line)")  # fmt: skip  # noqa: E501
    add("--no-dashboard", action="store_true", help="show no page")
    add("--no-cli", action="store_true", help="do not offer the command line (with --duration)")
    return parser


def _whole(text: str) -> int:
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


def _seconds(text: str) -> float:
    return _number(text, "seconds", 0.1, 10_000_000)


def _milliseconds(text: str) -> float:
    return _number(text, "milliseconds", 0, 60_000)


def _port(text: str) -> int:
    return int(_number(text, "a port", 1, 65535))


def _as(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """`read`, for argparse."""

    def parse(text: str) -> Any:
        try:
            return read(text)
        except Malformed as error:
            raise argparse.ArgumentTypeError(f"expected {error.expected}") from None

    return parse
