"""Runs of a series on real networks: brings each up, goes through its phases, keeps what they showed.

With each result goes where and when it was measured, and of which code: without it nobody can make a figure again.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtls.call import Unreachable
from scenario.workload import Arrival, arrivals
from telemetry import journal
from testbed import audit
from testbed.bench.round_trip_floor import RoundTrips
from testbed.errors import UserError
from testbed.evidence import summary
from testbed.experiments.evaluation import outcome
from testbed.experiments.series import Phase, Run, Store, remaining
from testbed.machine.isolation import run_isolated, undisturbed
from testbed.machine.run_directory import RunDirectory, open_run_directory
from testbed.network.emulation import Emulation
from testbed.network.workload_player import OfferedLoad, lasts_s
from testbed.operation.operator import Operator
from testbed.planning.capacity import reserve
from testbed.planning.plan import Plan
from testbed.planning.round_trips import too_long
from testbed.stages.bring_up import bring_up
from testbed.stages.prepare import Wishes

_ROOT = Path(__file__).resolve().parents[2]


def provenance() -> dict[str, str]:
    """Date (UTC), commit and machine, as one sees them in a report."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _commit(),
        "machine": f"{os.cpu_count()} x {_processor()}, {_memory_gb()} GB, Linux {platform.release()}",
    }


def _commit() -> str:
    """Of the code that runs; with "-dirty" where files differ from it, "unknown" outside a repository."""
    command = ["git", "-c", f"safe.directory={_ROOT}", "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        shown = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return shown.stdout.strip() or "unknown"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return " ".join(value.split())
    return platform.machine()


def _memory_gb() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)


_RESULT = "phases.json"
_CAUSE = "failed.txt"
_PINGS = 11
_LAST_WORDS_S = 0.5
_LOOK_S = 1.0
_CLOSED_WITHIN_S = 10.0
_WARM_UP_GAP_S = 0.05
_WARM_UP_SESSION_S = 0.1


class Interrupted(Exception):
    """The user wants no more; `status` is the exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def execute(
    runs: Sequence[Run], plan: Callable[[Run], Plan], store: Store, runs_folder: Path, say: Callable[[str], None]
) -> None:
    """All runs whose outcomes `store` lacks, on networks by that `plan`, one after another; Interrupted if a signal
    ends one.

    A phase that goes wrong is kept as a failure, and what came after it in its run is not tried.
    """
    todo = store.todo(runs, say)
    started = time.monotonic()
    for number, run in enumerate(todo, start=1):
        what = ", ".join(" ".join(p.labels.values()) for p in run.phases)
        left_s = remaining(todo[: number - 1], todo[number - 1 :], time.monotonic() - started)
        say(f"run {number} of {len(todo)}, repeat {run.repeat}: {what}; {_duration(left_s)} left")
        _one(run, plan(run), store, runs_folder, say)


def _one(run: Run, plan: Plan, store: Store, runs_folder: Path, say: Callable[[str], None]) -> None:
    reserve(plan)
    directory = open_run_directory(None, runs_folder, latest=False)
    try:
        status = run_isolated(
            functools.partial(_inside, run, plan, directory),
            pid_file=directory.path / "init.pid",
            crash_log=directory.path / "crash.log",
        )
    finally:
        directory.erase_secrets()
    if status >= 128:
        shutil.rmtree(directory.path, ignore_errors=True)
        raise Interrupted(status)
    found = _read(directory.path / _RESULT, default=[])
    good = dict(zip(run.names(), found, strict=False)) if status == 0 else {}
    for name, document in good.items():
        store.keep(name, document)
    lost = [name for name in run.names() if name not in good]
    if lost:
        cause = _read_text(directory.path / _CAUSE) or f"the run ended with status {status}"
        for name in lost:
            store.fail(name, cause, directory.path)
        say(f"FAILED: {', '.join(lost)}: {cause}; see {directory.path}")
    else:
        shutil.rmtree(directory.path, ignore_errors=True)


def _inside(run: Run, plan: Plan, directory: RunDirectory, outside: int) -> int:
    """The run, as the first process of its namespaces."""
    try:
        documents = _phases(run, plan, directory, outside)
    except (UserError, Unreachable) as error:
        (directory.path / _CAUSE).write_text(f"{error}\n")
        return 1
    directory.write(_RESULT, documents)
    return 0


def _phases(run: Run, plan: Plan, directory: RunDirectory, outside: int) -> list[dict[str, Any]]:
    """What each phase showed; UserError if anything in the run is not as it must be."""
    first = run.phases[0]
    why = too_long(plan.round_trip_s, first.parameters["ttl_slots"])
    if why is not None:
        raise UserError(why)
    # QCs go by the seed that all phases of a repeat have in common: scenarios that are compared need the same QCs as
    # much as the same sessions. Virtual time draws from that seed, too.
    wishes = Wishes(first.parameters, seed=first.seed, habits=first.workload.habits, policies=run.policies)
    windows, down = [], contextlib.ExitStack()
    try:
        emulation = bring_up(plan, directory, wishes, outside=outside, say=lambda _: None, down=down)
        facts = {
            "shaper": emulation.shaper,
            "datapath": emulation.datapath,
            "versions": emulation.versions(),
            "provenance": provenance(),
            "rtts_ms": RoundTrips(emulation, _PINGS).all() if run.measure_rtts else [],
        }
        operator = Operator(emulation)
        down.callback(operator.close)
        _warm_up(first, emulation, operator)
        for phase in run.phases:
            windows.append(_offer(phase, emulation, operator))
    finally:
        with undisturbed():
            down.close()
    events = summary.read_run(directory.path, *outcome.KEPT)
    _check_keys(events, directory.path)
    made = journal.read(directory.path / "qcs" / "journal.jsonl")
    return [
        {
            "repeat": run.repeat, "delay_ms": run.delay_ms, "qc_rate": run.qc_rate, "labels": dict(phase.labels),
            "parameters": dict(phase.parameters), "workload": phase.workload.to_json(), "seed": phase.seed, **facts,
            "made": _made(made, began, ended), "events": outcome.kept(events, began, ended),
        }
        for phase, (began, ended) in zip(run.phases, windows, strict=True)
    ]  # fmt: skip


def _warm_up(phase: Phase, emulation: Emulation, operator: Operator) -> None:
    """Each pair of the phase has a session with a key once: what is measured later are open connections."""
    pairs = arrivals(phase.workload, emulation.plan.saes, phase.seed)
    brief = [
        Arrival(i * _WARM_UP_GAP_S, a.master, a.slave, _WARM_UP_SESSION_S, a.qos) for i, a in enumerate(pairs)
    ]
    load = OfferedLoad(operator.do, brief, lambda _: None)
    load.start()
    load.join()
    _wait_closed(operator)


def _offer(phase: Phase, emulation: Emulation, operator: Operator) -> tuple[float, float]:
    """The phase in a network that is up; when it began and ended by the wall clock."""
    operator.do("set_parameters", values=dict(phase.parameters))
    time.sleep(phase.settle_s)
    arriving = arrivals(phase.workload, emulation.plan.saes, phase.seed)
    load = OfferedLoad(operator.do, arriving, lambda _: None)
    began = time.time()
    load.start()
    try:
        ends = time.monotonic() + lasts_s(arriving) + _LAST_WORDS_S
        while (left := ends - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_S))
            _check_alive(emulation)  # what has died makes the phase worthless: no need to see it through
    finally:
        load.stop()
    _wait_closed(operator)
    _check_alive(emulation)
    return began, time.time()


def _wait_closed(operator: Operator) -> None:
    deadline = time.monotonic() + _CLOSED_WITHIN_S
    while operator.do("sessions"):
        if time.monotonic() > deadline:
            raise UserError("key sessions are still open after the end of their time")
        time.sleep(0.1)


def _check_alive(emulation: Emulation) -> None:
    for process in emulation.dead():
        raise UserError(f"{process.name} ended on its own: {process.last_words()}")


def _check_keys(events: Sequence[summary.Event], path: Path) -> None:
    """A network that broke a rule of key material, or met a bug of ours, is none to measure."""
    pairs = summary.compare_pairs(events)
    if pairs["compared"] != pairs["identical"]:
        raise UserError(f"{pairs['compared'] - pairs['identical']} key pairs differ")
    try:
        findings = audit.load(path).findings
    except audit.Unreadable as error:
        raise UserError(f"no audit: {error}") from None
    if findings:
        raise UserError(f"the audit found a violation: {'; '.join(findings[:3])}")
    if bugs := summary.bugs_told(path / "logs"):
        raise UserError(f"bugs of ours: {'; '.join(bugs)}")


def _made(events: Iterable[Mapping[str, Any]], began: float, ended: float) -> list[tuple[str, float, int]]:
    """What the QCs made until `ended`: (QC, seconds after `began`, bytes); negative is before."""
    return [
        (e["qc"], round(e["time"] - began, 3), e["n_bytes"])
        for e in events
        if e["event"] == "block" and e["n_bytes"] and e["time"] <= ended
    ]


def _read(path: Path, default: Any) -> Any:
    return json.loads(path.read_text()) if path.is_file() else default


def _read_text(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""


def _duration(left_s: float) -> str:
    minutes = round(left_s / 60)
    if minutes < 2:
        return f"about {max(10, round(left_s / 10) * 10)} s"
    return f"about {minutes} min" if minutes < 100 else f"about {minutes // 60} h {minutes % 60:02} min"
