"""`python testbed/run.py`: options, checks, one run, its summary.

What makes a network takes half a second to load (Mininet, PostgreSQL's client, HTTP). It is loaded where it is needed:
help, virtual time and most refusals come without it.
"""

from __future__ import annotations

import argparse
import datetime
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from decisions.rekey import GO_ON
from scenario.topology import TopologyError, load, load_machines
from scenario.workload import Arrival, Pairs, Workload
from scenario.workload import load as load_workload
from testbed import options
from testbed.dashboard.address import USUAL_PORT
from testbed.errors import UserError
from testbed.machine.isolation import run_isolated, undisturbed
from testbed.machine.run_directory import new_run_id, open_run_directory, point_latest
from testbed.machine.tools import DATABASE_TOOLS, FRAMEWORKS, check_tools, clean_environment, python_for
from testbed.network.expose import ANY_PORT
from testbed.planning.databases import SINGLE
from testbed.planning.plan import Plan, SaePlan

if TYPE_CHECKING:
    from testbed.session import Dashboard

_ROOT = Path(__file__).resolve().parent.parent
_TOPOLOGIES = _ROOT / "topologies"
_RUNS = _ROOT / "runs"
_WORKLOADS = _ROOT / "workloads"
_UNASKED: object = object()
# Sessions that a user opens stay until he closes them: one whose path is down for a while goes on when it is up again.
_STEADFAST = {"on_key_failure": GO_ON}
# Between the end of the last session of a workload and that of the run.
_LAST_WORDS_S = 1.0


def main(arguments: list[str]) -> int:
    """Run the testbed as `arguments` say; the exit status."""
    try:
        if arguments[:1] == ["experiment"]:
            return _experiment(arguments[1:])
        if arguments[:1] == ["simulate"]:
            from testbed import simulate

            return simulate.main(arguments[1:], topologies=_TOPOLOGIES, workloads=_WORKLOADS)
        if arguments[:1] == ["conformance"]:
            from conformance import command as conformance

            return conformance.main(arguments[1:])
        given = _parser().parse_args(arguments)
        if given.detach:
            return _detached(given, arguments)
        return _in_vm(given, arguments) if given.vm else _main(given)
    except (UserError, TopologyError) as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _experiment(arguments: list[str]) -> int:
    # Where matplotlib keeps what it knows of fonts; else that would be in root's home.
    if os.geteuid() == 0:
        os.environ.setdefault("MPLCONFIGDIR", str(_ROOT / ".venv" / "matplotlib"))
    from testbed.experiments import bypass, command, policies  # matplotlib and scipy, which a run does without

    alone = {policies.NAME: policies.main, bypass.NAME: bypass.main}
    if arguments[:1] and arguments[0] in alone:
        return alone[arguments[0]](arguments[1:], topologies=_TOPOLOGIES, results=_ROOT / "results")
    return command.main(arguments, _prepare)


_NO_WAY_OUT = "a virtual machine has no network to the outside"


def _in_vm(given: argparse.Namespace, arguments: list[str]) -> int:
    """The same in a virtual machine."""
    if given.expose is not None or given.shared_db is not None or given.dashboard is not _UNASKED:
        text = "--vm goes without --expose, --shared-db and --dashboard"
        raise UserError(f"{text}: {_NO_WAY_OUT}")
    topology = load(given.topology, _TOPOLOGIES)
    links = topology.links
    if topology.machines or given.machines is not None:
        raise UserError(f"--vm goes without machines: {_NO_WAY_OUT}")
    if devices := [qc.name for link in links for qc in link.qcs if qc.source is not None]:
        raise UserError(f"--vm goes without devices of yours, of which {devices[0]} is one: {_NO_WAY_OUT}")
    directory = (given.run_dir or _RUNS / new_run_id(datetime.datetime.now(datetime.UTC))).absolute()
    from testbed.virtual_machine import vm

    status = vm.run([*arguments, "--no-dashboard"], python=Path(sys.executable), root=_ROOT, run_directory=directory)
    if given.run_dir is None:
        point_latest(_RUNS, directory)
    return status


def _detached(given: argparse.Namespace, arguments: list[str]) -> int:
    """The same in the background: shows what it says until the network is up; the exit status, 0 if that is so."""
    if given.vm:
        raise UserError("--detach goes without --vm: what runs in a virtual machine ends with it")
    from testbed.session import REACHED

    rest = [word for word in arguments if word != "--detach"]
    command = [sys.executable, "-P", "-m", "testbed", "--detached", *rest]
    run = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        for line in run.stdout or ():
            text = line.decode(errors="replace")
            print(text, end="", flush=True)
            if text.startswith(REACHED):
                return 0
        return run.wait()
    except KeyboardInterrupt:
        run.terminate()
        return run.wait()


def _prepare() -> None:
    """What everything needs that makes networks; UserError."""
    if os.geteuid() != 0:
        raise UserError("needs root, because it makes network namespaces: sudo python testbed/run.py")
    os.umask(0o022)
    clean_environment()
    check_tools()


def _main(given: argparse.Namespace) -> int:
    database_url = None
    if given.shared_db is not None:
        from testbed.database.shared_database import complete_url

        database_url = complete_url(given.shared_db)  # before the environment is cleaned of what libpq reads there
    _prepare()
    if given.database != SINGLE:
        if database_url is not None:
            raise UserError("--database and --shared-db: choose one; yours fails over as you have set it up")
        check_tools(DATABASE_TOOLS)
    topology = load(given.topology, _TOPOLOGIES).with_overrides(delay_ms=given.delay, qc_rate=given.qc_rate)
    if given.machines is not None:
        topology = load_machines(given.machines, topology)
    plan = options.planned(given, topology)
    seed = secrets.randbelow(1 << 31) if given.seed is None else given.seed
    workload = None if given.workload is None else load_workload(given.workload, _WORKLOADS)
    arriving = _arrivals(given, plan, workload, seed)
    from testbed.database.shared_database import members, open_user_database
    from testbed.network.workload_player import lasts_s
    from testbed.planning.capacity import doubt, needs, reserve
    from testbed.session import Options, run
    from testbed.workers import worker as workers

    duration_s = given.duration
    if duration_s is None and workload is not None and given.no_cli:
        duration_s = lasts_s(arriving) + _LAST_WORDS_S
    parameters, policies = options.parameters(given, topology)
    wanted = Options(
        parameters=parameters,
        policies=policies,
        arrivals=arriving,
        habits=_STEADFAST if workload is None else workload.habits,
        duration_s=duration_s,
        seed=seed,
        workload=None if workload is None else workload.name,
        seeded_qcs=given.seed is not None,
        cli=not given.no_cli and given.duration is None and not given.detached,
        expose=given.expose,
        controller_python=python_for(given.framework),
        dashboard=_dashboard(given),
        detached=given.detached,
        owner=int(os.environ.get("SUDO_UID", "0")),
    )
    if given.no_cli and duration_s is None and not given.detached:
        raise UserError("--no-cli needs --duration or --workload: otherwise nothing would ever end the run")
    wanted.check(plan)
    workers.check(plan, exposed=given.expose is not None, policies=policies)
    reserve(plan)
    if said := doubt(plan):
        print(f"run.py: {said}", file=sys.stderr, flush=True)
    directory = open_run_directory(given.run_dir, _RUNS)
    database = None
    try:
        if database_url is not None:
            schema = f"qkd_{directory.id.replace('-', '_')}"
            connections = needs(plan).fewest_connections
            database = open_user_database(
                database_url, schema, members(plan), connections=connections,
                several_in=plan if len(plan.controllers) > 1 else None,
            )  # fmt: skip
        return run_isolated(
            lambda outside: run(plan, directory, wanted, outside=outside, user_database=database),
            pid_file=directory.path / "init.pid",
            crash_log=directory.path / "crash.log",
        )
    finally:
        with undisturbed():
            if database is not None:
                database.drop()
            directory.erase_secrets()


def _arrivals(given: argparse.Namespace, plan: Plan, workload: Workload | None, seed: int) -> list[Arrival[SaePlan]]:
    """The key sessions to open: as asked, else a handful for a run of a given length, none where they can be typed."""
    most = min(options.DEFAULT_SESSIONS, len(plan.applications), len(Pairs(plan.saes)))
    handful = 0 if given.duration is None else most
    return options.arrivals(given, plan.saes, workload, seed, handful=handful, length_s=None)


def _dashboard(given: argparse.Namespace) -> Dashboard:
    """Where the page is to be; a run with a command line has one unless told otherwise."""
    asked = given.dashboard is not _UNASKED
    if asked and given.no_dashboard:
        raise UserError("--dashboard and --no-dashboard: choose one")
    from testbed.session import Dashboard

    interactive = given.duration is None and not given.no_cli
    return Dashboard(on=(asked or interactive) and not given.no_dashboard, port=given.dashboard if asked else None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run.py",
        description="An emulated QKD network: nodes, controller and applications on Mininet. Needs root.",
        epilog="Without --duration you get Mininet's command line with the network running; try 'qkd'."
        " 'run.py experiment --help' tells of experiments, 'run.py simulate --help' of virtual time,"
        " 'run.py conformance --help' of checks of anybody's KMEs.",
    )
    add = parser.add_argument
    options.network(parser)
    add("--duration", type=options.seconds, metavar="S", help="end after S seconds of exchanging keys")
    add("--delay", type=options.milliseconds, metavar="MS", help="one-way delay of every link, in milliseconds")
    add("--detach", action="store_true", help="return when the network is up, and leave it running")
    add("--detached", action="store_true", help=argparse.SUPPRESS)
    add("--run-dir", type=Path, metavar="DIR", help="where logs and results go (default: a new folder in runs/)")
    add("--shared-db", metavar="URL", help="use this PostgreSQL in place of a private one")
    add("--expose", nargs="?", const=ANY_PORT, type=options.port, metavar="PORT", help="publish controller, KMEs and agents on 127.0.0.1, at ports from PORT on (default: whatever is free); see docs/client.md")  # fmt: skip  # noqa: E501
    add("--vm", action=argparse.BooleanOptionalAction, default=False, help="run all of it in user-mode Linux: needs no root, is slow")  # fmt: skip  # noqa: E501
    add("--machines", type=Path, metavar="FILE", help="YAML file with the machines that hold some datacenters, reached by ssh (default: those of the topology); see docs/machines.md")  # fmt: skip  # noqa: E501
    add("--framework", choices=FRAMEWORKS, default=FRAMEWORKS[0], help="what the controller speaks OpenFlow with: os-ken, or Ryu 4.34 in an environment of its own (default: os-ken)")  # fmt: skip  # noqa: E501
    options.failing_over(parser)
    add("--dashboard", nargs="?", const=None, default=_UNASKED, type=options.port, metavar="PORT", help=f"show the network on a page at 127.0.0.1:PORT (default: {USUAL_PORT}, or whatever is free; on with the command line)")  # fmt: skip  # noqa: E501
    add("--no-dashboard", action="store_true", help="show no page")
    add("--no-cli", action="store_true", help="do not offer the command line (with --duration)")
    return parser
