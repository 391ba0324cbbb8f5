"""`run.py experiment NAME`: options, the series, its results and the page about them."""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from decisions.parameters import TTL
from scenario.topology import load as load_topology
from scenario.workload import Workload
from scenario.workload import load as load_workload
from testbed.errors import UserError
from testbed.experiments import in_virtual_time, report
from testbed.experiments.evaluation import figures, outcome
from testbed.experiments.evaluation.results import Results
from testbed.experiments.execute import Interrupted, execute
from testbed.experiments.experiment import Experiment, Seen, Settings
from testbed.experiments.kinds import blocks, fig7, fig8, latency, relay, sweep, table1
from testbed.experiments.series import Run, Store, clear, digests, seconds, seed_of, writing
from testbed.experiments.workers import Each, workers
from testbed.machine.tools import DATABASE_TOOLS, check_tools
from testbed.options import failing_over, parsed_by
from testbed.planning.databases import SINGLE

_ROOT = Path(__file__).resolve().parents[2]
_TOPOLOGIES, _WORKLOADS, _RUNS, _RESULTS = (_ROOT / name for name in ("topologies", "workloads", "runs", "results"))
EXPERIMENTS: Mapping[str, Experiment] = {
    found.EXPERIMENT.name: found.EXPERIMENT for found in (table1, fig7, fig8, latency, relay, blocks, sweep)
}
# What `all` stands for: the paper's, and the one on delays.
_ALL = (table1.NAME, fig7.NAME, fig8.NAME, latency.NAME)
_VIRTUAL = tuple(found.name for found in EXPERIMENTS.values() if found.virtual)
_LEAST_REPEATS = 2
_QUICK_SPEED = 5
_MOST_SPEED = 15


def main(arguments: Sequence[str], prepare: Callable[[], None]) -> int:
    """Make the experiments that `arguments` ask for, after `prepare`; 0, or 1 if a phase failed; UserError."""
    given = _parser().parse_args(arguments)
    over = _over(given.over or [], given.name)
    _check(given)
    if not (given.virtual or given.so_far):
        prepare()
    if given.database != SINGLE and not given.so_far:
        check_tools(DATABASE_TOOLS)
    names = _ALL if given.name == "all" else (given.name,)
    folder = (given.out or (_RESULTS / "quick" if given.quick else _RESULTS)).absolute()
    workloads = {path.stem: load_workload(path.stem, _WORKLOADS) for path in _WORKLOADS.glob("*.yaml")}
    chosen = None
    if given.workload is not None:
        found = load_workload(given.workload, _WORKLOADS)
        chosen = found.name
        workloads[chosen] = found
    begun = [_begin(EXPERIMENTS[n], folder, given, workloads=workloads, chosen=chosen, over=over) for n in names]
    if len(begun) > 1 and not given.so_far:
        total_s = sum(seconds(run) for one in begun for run in map(one.store.missing, one.runs) if run.phases)
        print(f"{len(begun)} experiments, about {_took(total_s)} to go", flush=True)
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        each = stack.enter_context(workers(given.dask)) if given.virtual and not given.so_far else None
        status, without = 0, []
        for one in begun:
            if not given.so_far:
                _run(one, each)
            try:
                status = max(status, _make(one))
            except _NoResults as error:  # others have some
                without.append(str(error))
    if len(without) < len(begun):
        with writing(folder):
            page = report.write(folder, list(EXPERIMENTS))
        print(f"\n{_took(time.monotonic() - started)}; figures, tables and what was run: {page}", flush=True)
    if without:
        raise UserError("; ".join(without))
    return status


class _NoResults(UserError):
    """Too little went well for error bars."""


@dataclass(frozen=True, slots=True)
class _Series:
    """An experiment that was begun, or goes on. `described`: what is done, as it is written down."""

    experiment: Experiment
    settings: Settings
    runs: Sequence[Run]
    described: Mapping[str, Any]
    store: Store

    def say(self, text: str) -> None:
        """Print it under the experiment's name."""
        print(f"{self.experiment.name}: {text}", flush=True)


def _begin(
    experiment: Experiment,
    folder: Path,
    given: argparse.Namespace,
    *,
    workloads: Mapping[str, Workload],
    chosen: str | None,
    over: Mapping[str, Sequence[str]],
) -> _Series:
    """Before anything is run, so that what cannot be done is said at once; UserError."""
    # Under a load of the user's choice, in virtual time, or with what must not fail twice, it is another series.
    twice = [f"{name}-{kind}" for name in ("database", "controller") if (kind := getattr(given, name)) != SINGLE]
    words = [experiment.name, *([chosen] if chosen else []), *(["virtual"] if given.virtual else []), *twice]
    out = folder / "-".join(words)
    if given.again:
        clear(out)
    begun = seed_of(out)
    if given.so_far and begun is None:
        raise UserError(f"--so-far: no series was begun in {out}")
    seed = given.seed if given.seed is not None else secrets.randbelow(1 << 20) if begun is None else begun
    settings = Settings(
        seed=seed,
        repeats=given.repeat or (experiment.quick_repeats if given.quick else experiment.repeats),
        quick=given.quick,
        speed=given.speed or (_QUICK_SPEED if given.quick else 1),
        topology=load_topology(given.topology or experiment.topology, _TOPOLOGIES),
        topology_said=given.topology or experiment.topology,
        workloads=workloads,
        workload=chosen,
        over=over,
        usual_ttl=given.ttl,
        virtual=given.virtual,
        database=given.database,
        controller=given.controller,
    )
    runs = experiment.runs(settings)
    settings.plan(runs[0])  # is refused before anything is done, if there cannot be such a network
    described = settings.to_json() | {"phases": _describe(runs)}
    if own := [reference for run in runs for reference in run.policies.values()]:
        described["files"] = digests(own)
    return _Series(experiment, settings, runs, described, Store(out, {"experiment": experiment.name, **described}))


def _run(one: _Series, each: Each | None) -> None:
    """Run what is missing of it. `each`: those who do it in virtual time; None: on real networks."""
    settings, say = one.settings, one.say
    lasts = "in virtual time" if settings.virtual else f"{_took(sum(map(seconds, one.runs)))} in all"
    say(f"{one.experiment.title}; seed {settings.seed}, {settings.repeats} repeats, {len(one.runs)} runs, {lasts}")
    try:
        if each is None:
            execute(one.runs, settings.plan, one.store, _RUNS, say)
        else:
            in_virtual_time.simulate(one.runs, settings.topology, one.store, each, say)
    except (Interrupted, KeyboardInterrupt) as interrupted:  # the latter between two runs
        say("interrupted; the same command goes on from here, and with --so-far makes results of what is there")
        raise SystemExit(interrupted.status if isinstance(interrupted, Interrupted) else 130) from None


def _make(one: _Series) -> int:
    """Write everything that is made of what is there of it; 0, or 1 if a phase failed. _NoResults."""
    documents, failed = list(one.store.outcomes(one.runs)), one.store.failures()
    missing = sum(len(run.phases) for run in one.runs) - len(documents) - len(failed)
    out = one.store.path
    _write(one.experiment, one.settings, one.described, documents, failed=failed, missing=missing, out=out)
    lacking = [*([f"{len(failed)} PHASES FAILED and are left out"] if failed else []),
               *([f"PHASES STILL TO BE RUN: {missing}"] if missing else [])]  # fmt: skip
    one.say("; ".join([f"results in {out}", *lacking]))
    return 1 if failed else 0


def _write(
    experiment: Experiment,
    settings: Settings,
    described: Mapping[str, Any],
    documents: Sequence[Mapping[str, Any]],
    *,
    failed: Sequence[Mapping[str, Any]],
    missing: int,
    out: Path,
) -> None:
    """Everything that is made of the outcomes; _NoResults if they are too few for error bars, UserError."""
    try:
        versions = [document["versions"] for document in documents]
        results = Results(
            experiment=experiment.name, quick=settings.quick,
            title=experiment.title + (", in virtual time" if settings.virtual else ""),
            rows=experiment.rows([Seen(d) for d in documents], settings), seed=settings.seed,
            shaper=_all(d["shaper"] for d in documents), datapath=_all(d["datapath"] for d in documents),
            versions=_each(versions), provenance=_each([document["provenance"] for document in documents]),
            command=_command(experiment, settings),
            settings=described, failed=failed, missing=missing,
        )  # fmt: skip
    except ValueError as error:
        causes = "; ".join(sorted({str(f["cause"]) for f in failed}))
        raise _NoResults(f"{experiment.name}: no results: {error}{': ' + causes if causes else ''}") from None
    with writing(out):
        (out / "results.csv").write_text(results.to_csv())
        _write_events(out / "events.csv", documents)
        if experiment.draw is not None:
            figures.save(experiment.draw(results), out / "figure")
        report.keep(results, experiment, out)


def _each(documents: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {name: _all(d[name] for d in documents if name in d) for name in dict.fromkeys(chain(*documents))}


def _command(experiment: Experiment, settings: Settings) -> str:
    """What makes these results again, up to chance."""
    words = [f"{'' if settings.virtual else 'sudo '}python testbed/run.py experiment", experiment.name]
    if settings.virtual:
        words.append("--virtual")
    if settings.quick:
        words.append("--quick")
    if settings.topology_said != experiment.topology:
        words.append(f"--topology {settings.topology_said}")
    if settings.workload is not None:
        words.append(f"--workload {settings.workload}")
    words += [f"--over {name}={','.join(values)}" for name, values in settings.over.items()]
    words += [f"--{name} {kind}" for name, kind in settings.twice.items()]
    if settings.speed != (_QUICK_SPEED if settings.quick else 1):
        words.append(f"--speed {settings.speed}")
    if settings.usual_ttl != TTL.default:
        words.append(f"--ttl {settings.usual_ttl}")
    if settings.repeats != (experiment.quick_repeats if settings.quick else experiment.repeats):
        words.append(f"--repeat {settings.repeats}")
    return " ".join([*words, f"--seed {settings.seed}"])


def _all(facts: Iterable[str]) -> str:
    """One, as a rule; a series that went on after an upgrade, or elsewhere, has several."""
    return " and ".join(dict.fromkeys(facts))


def _write_events(path: Path, documents: Sequence[Mapping[str, Any]]) -> None:
    """Every event that figures were made of, a line each."""
    names = list(dict.fromkeys(name for document in documents for name in document["labels"]))
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["repeat", *names, *outcome.FACTS])
        for document in documents:
            labels = [document["labels"].get(name, "") for name in names]
            for event in document["events"]:
                facts = [event.get(name, "") for name in outcome.FACTS]
                facts = [json.dumps(fact) if isinstance(fact, list) else fact for fact in facts]
                writer.writerow([document["repeat"], *labels, *facts])


def _describe(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What is done in the first repeat, and so in each, but for the seed."""
    return [
        {
            "labels": dict(phase.labels), "parameters": dict(phase.parameters), "workload": phase.workload.to_json(),
            "delay_ms": run.delay_ms, "qc_rate": run.qc_rate and list(run.qc_rate), "settle_s": phase.settle_s,
            **({"blocks_s": run.blocks_s} if run.blocks_s else {}),
        }
        for run in runs
        if run.repeat == 1
        for phase in run.phases
    ]  # fmt: skip


def _check(given: argparse.Namespace) -> None:
    """UserError where virtual time is asked for and shows nothing."""
    if given.virtual and given.name not in _VIRTUAL:
        raise UserError(f"--virtual: expected {' or '.join(_VIRTUAL)}: {given.name} measures what takes no time there")
    if given.virtual and (given.database, given.controller) != (SINGLE, SINGLE):
        text = "--database and --controller go with networks of real parts: in virtual time nothing fails over"
        raise UserError(text)
    if given.so_far and given.again:
        raise UserError("--so-far makes results of what is there, and --again forgets it: expected one of them")
    if given.dask is not None and not given.virtual:
        raise UserError("--dask goes with --virtual: networks of real parts are made on this machine")


def _over(given: Sequence[str], name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in given:
        key, _, values = text.partition("=")
        listed = [v.strip() for v in values.split(",") if v.strip()]
        if not listed or len(set(listed)) != len(listed) or key in found:
            raise UserError(f"--over {text}: expected NAME=VALUE,VALUE,..., each name and each value once")
        found[key] = listed
    if bool(found) != (name == sweep.NAME):
        raise UserError("--over goes with the experiment sweep, and that needs at least one")
    return found


def _took(all_s: float) -> str:
    minutes, whole_s = divmod(round(all_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {whole_s:02} s"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run.py experiment",
        description="The paper's experiments and our own, on real networks. Needs root. An interrupted series goes on"
        " with the same command. 'experiment policies --help' and 'experiment bypass --help' tell of two more, in"
        " virtual time.",
    )
    add = parser.add_argument
    add("name", choices=("all", *EXPERIMENTS), help=f"which one; all: {', '.join(_ALL)}")
    add("--quick", action="store_true", help="small samples and fast loads: all in about five minutes")
    add("--repeat", type=_repeats, metavar="N", help="repeats (default: 6, the fewest with 95 %% intervals; quick: 2)")
    add("--speed", type=_speed, metavar="N", help="divide all times of loads by N and multiply the QCs' rates (default: 1; quick: 5)")  # fmt: skip  # noqa: E501
    add("--seed", type=_seed, metavar="N", help="same seed, same workloads and QCs (default: a new one, or that of the series)")  # fmt: skip  # noqa: E501
    add("--out", type=Path, metavar="DIR", help="where results go, a folder for each experiment (default: results/)")
    add("--again", action="store_true", help="begin anew where a series was begun already")
    add("--so-far", action="store_true", help="run nothing: results of what is there of a series that goes on or was interrupted")  # fmt: skip  # noqa: E501
    add("--topology", metavar="NAME|FILE", help="network (default: poliqi; of relay: trellis)")
    add("--workload", metavar="NAME|FILE", help="another load than the experiment's own, see workloads/")
    add("--ttl", type=parsed_by(TTL.parse), default=TTL.default, metavar="SLOTS", help=f"{TTL.meaning}, of 1 s each (default: {TTL.default})")  # fmt: skip  # noqa: E501
    failing_over(parser)
    add("--virtual", action="store_true", help=f"in virtual time: no root, all cores; for {' and '.join(_VIRTUAL)}")
    add("--dask", metavar="ADDRESS", help="with --virtual: on the Dask cluster with that scheduler, tcp://HOST:PORT")
    add("--over", action="append", metavar="NAME=A,B,...", help=f"what a sweep goes over; several make all combinations. Names: {', '.join(sweep.NAMES)}")  # fmt: skip  # noqa: E501
    return parser


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"expected a whole number of at most 9 digits, got {text!r}")
    return int(text)


def _speed(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= _MOST_SPEED:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to {_MOST_SPEED}, got {text!r}")
    return int(text)


def _repeats(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not _LEAST_REPEATS <= int(text[:9]) <= 1000:
        raise argparse.ArgumentTypeError(f"expected {_LEAST_REPEATS} to 1000 (one has no error bar), got {text!r}")
    return int(text)
