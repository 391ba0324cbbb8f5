"""`python -m testbed.storm`: PoliQI under thousands of faults in gusts, and whether it heals by itself each time."""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from scenario.topology import load, load_machines
from testbed.bench.bench_run import ROOT, bench
from testbed.errors import UserError
from testbed.machine import output
from testbed.machine.isolation import run_isolated
from testbed.machine.leftovers import Machine
from testbed.machine.run_directory import open_run_directory
from testbed.machine.tools import DATABASE_TOOLS, check_tools
from testbed.options import failing_over, milliseconds, planned, whole
from testbed.planning.databases import SINGLE
from testbed.planning.plan import Plan
from testbed.storm import gusts
from testbed.storm.devices import Devices, marked
from testbed.storm.gusts import Gust
from testbed.storm.raging import RESULT, rage
from testbed.storm.result import Result, parse
from testbed.storm.strangers import with_strangers

# Plenty of key material: a key over five links costs plenty, and for want of it no pair is to go without.
_QC_RATE = (900, 1000)
# Then its records are audited, and what grows with the time begins anew.
_GUSTS_A_NETWORK = 100


def main(arguments: Sequence[str]) -> int:
    """The storm that `arguments` ask for; exit status 1 if anything was not so."""
    given = _parser().parse_args(arguments)
    topology = load("poliqi", ROOT / "topologies").with_overrides(qc_rate=_QC_RATE, delay_ms=given.delay)
    try:
        if given.machines is not None:
            topology = load_machines(given.machines, topology)
        plan = planned(given, marked(with_strangers(topology), given.devices))
    except UserError as error:
        print(f"storm: {error}", file=sys.stderr)
        return 2
    one = None if given.only_gust is None else gusts.nth(plan, given.seed, given.only_gust, given.longest)
    storm = gusts.storm(plan, given.seed, given.faults, given.longest) if one is None else [one]
    print(f"seed {given.seed}, {sum(len(g.blows) for g in storm)} faults in {len(storm)} gusts", flush=True)
    if given.dry_run:
        for gust in storm:
            print(f"gust {gust.number:4}  {gust.mode:5}  {'; '.join(map(str, gust.blows))}")
        return 0
    return bench("storm", lambda: _storm(plan, one, given))


def _storm(plan: Plan, one: Gust | None, given: argparse.Namespace) -> int:
    """`one` gust, or as many as it takes until there were enough faults: some that are drawn are refused."""
    if plan.database != SINGLE:
        check_tools(DATABASE_TOOLS)
    total = Result()
    try:
        while total.faults < given.faults:
            before = total.gusts
            drawn = gusts.gusts(plan, given.seed, given.longest)
            storm = [one] if one else list(itertools.islice(drawn, before, before + given.audit_every))
            _over_one_network(plan, storm, given, total)
            if one or total.gusts == before:
                break  # what is not whole without a gust needs none
    finally:
        print("\n" + total.for_people(), flush=True)
    return 1 if total.findings else 0


def _over_one_network(plan: Plan, storm: Sequence[Gust], given: argparse.Namespace, total: Result) -> None:
    """Have those gusts come, until there are enough faults or the network does not heal; count in what they did."""
    machine, directory = Machine(), open_run_directory(given.run_dir, ROOT / "runs")
    devices = Devices(directory.make("devices"), plan.topology) if given.devices else None
    if devices is not None:
        plan = planned(given, devices.topology)
    print(f"a network for the gusts from {storm[0].number} on; run directory {directory.path}", flush=True)
    try:
        status = run_isolated(
            functools.partial(
                rage, plan, directory, storm, faults=given.faults - total.faults, within_s=given.within,
                devices=devices,
            ),
            pid_file=directory.path / "init.pid",
            crash_log=directory.path / "crash.log",
        )
    finally:
        directory.erase_secrets()
    if (directory.path / RESULT).exists():
        total.add(parse(json.loads((directory.path / RESULT).read_text())))
    total.findings += [f"left behind: {what}: {left}" for what, left in machine.left_behind(directory.path).items()]
    if status != 0:
        raise UserError(f"broke off with status {status}; see {directory.path}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="storm",
        description="PoliQI under faults in gusts of a few at once, in three modes. After each gust every pair must be"
        " served again before long, without being touched. Needs root. Exit status 1 if anything was not so.",
    )
    add = parser.add_argument
    add("--seed", type=int, default=1, metavar="N", help="the same storm again for the same seed (default: 1)")
    add("--faults", type=_number, default=2000, metavar="N", help="how many faults, at least (default: 2000)")
    add("--longest", type=_seconds, default=30.0, metavar="S", help="seconds that a fault lasts at most (default: 30)")
    add("--within", type=_seconds, default=10.0, metavar="S", help="seconds to heal in (default: 10)")
    add(
        "--audit-every", type=_number, default=_GUSTS_A_NETWORK, metavar="N",
        help=f"gusts, after which a network ends and is audited, and another begins (default: {_GUSTS_A_NETWORK})",
    )
    add("--only-gust", type=_number, metavar="N", help="that gust of the storm, alone")
    add("--run-dir", type=Path, metavar="DIR", help="where logs and records go (default: a new folder in runs/)")
    add("--machines", type=Path, metavar="FILE", help="machines that hold some of its datacenters (docs/machines.md)")
    add("--delay", type=milliseconds, metavar="MS", help="one-way delay of every fibre, in milliseconds")
    failing_over(parser)
    add(
        "--devices", type=whole, default=0, metavar="N",
        help="fibres whose QC has its key material from a real device, by GS QKD 014 (default: 0)",
    )
    add("--dry-run", action="store_true", help="say what would come, and leave it at that")
    return parser


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= len(text) <= 6 or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 999999, got {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.2 <= value <= 600:
        raise argparse.ArgumentTypeError(f"expected seconds from 0.2 to 600, got {text!r}")
    return value


if __name__ == "__main__":
    sys.exit(output.run(lambda: main(sys.argv[1:])))
