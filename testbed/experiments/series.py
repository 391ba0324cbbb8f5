"""What an experiment does: networks that come up, phases in each, and where the results lie. PURE but for `Store`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from scenario.topology_description import Topology
from scenario.workload import Workload
from testbed.errors import UserError
from testbed.experiments.workers import Each

# What a network costs beside its phases: coming up, and going down with its audit.
NETWORK_S = 9.0


@dataclass(frozen=True, slots=True)
class Phase:
    """One load offered to a network under some parameters of the controller, after `settle_s` seconds of rest.

    The rest lets stocks fill and pools expire, so that a phase does not feel what was before it.
    """

    labels: Mapping[str, str]  # what tells it from the others: scenario, mode, link delay ...
    parameters: Mapping[str, Any]
    workload: Workload
    seed: int
    settle_s: float

    @property
    def name(self) -> str:
        """As in file names."""
        return "_".join("".join(c if c.isalnum() else "-" for c in v) for v in self.labels.values()).lower()


@dataclass(frozen=True, slots=True)
class Run:
    """A network with phases one after another. `repeat` counts from 1; None leaves delay or rates as in the topology.

    `blocks_s`: how often QCs hand over what they have made; None: as the topology says. `measure_rtts`: whether the
    round trips between hosts are measured, which floors are made of. `policies`: of the user's own, FILE.py:NAME by
    parameter.
    """

    repeat: int
    phases: tuple[Phase, ...]
    delay_ms: float | None = None
    qc_rate: tuple[int, int] | None = None
    blocks_s: float | None = None
    measure_rtts: bool = False
    policies: Mapping[str, str] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Of the files of its phases."""
        return [f"repeat{self.repeat:02}_{phase.name}" for phase in self.phases]


    def network(self, topology: Topology) -> Topology:
        """That topology as this run has it."""
        return topology.with_overrides(delay_ms=self.delay_ms, qc_rate=self.qc_rate, blocks_s=self.blocks_s)


class Named(Protocol):
    """What an experiment in virtual time does at once: a load, on a network."""

    @property
    def name(self) -> str:
        """As in file names."""


class Store:
    """The folder of a series: its settings, and an outcome or a failure for each phase that was tried."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Open or begin the series; UserError if `path` holds one with other settings, or something else."""
        self.path = path
        self._raw = path / "raw"
        file = path / "series.json"
        try:
            self._raw.mkdir(parents=True, exist_ok=True)
            if file.exists():
                _check_same(json.loads(file.read_text()), json.loads(json.dumps(settings)), path)
            else:
                _write_json(file, settings)
        except (OSError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"--out {path}: {getattr(error, 'strerror', None) or error}") from None

    def missing(self, run: Run) -> Run:
        """`run` with those phases only that have no outcome yet."""
        phases = [p for p, name in zip(run.phases, run.names(), strict=True) if not self.has(name)]
        return replace(run, phases=tuple(phases))

    def todo(self, runs: Sequence[Run], say: Callable[[str], None]) -> list[Run]:
        """Those of `runs` that lack an outcome, with the phases that do; says how many do not."""
        left = [run for run in map(self.missing, runs) if run.phases]
        if len(left) < len(runs):
            say(f"{len(runs) - len(left)} of {len(runs)} runs are there already")
        return left

    def has(self, name: str) -> bool:
        """Whether there is an outcome of that name."""
        return self._outcome(name).exists()

    def read(self, name: str) -> dict[str, Any]:
        """That outcome."""
        found: dict[str, Any] = json.loads(self._outcome(name).read_text())
        return found

    def keep(self, name: str, outcome: Mapping[str, Any]) -> None:
        """A phase went well."""
        _write_json(self._outcome(name), outcome)
        self._failure(name).unlink(missing_ok=True)

    def fill(self, cases: Sequence[Named], outcome: Callable[[Any], Any], each: Each) -> list[dict[str, Any]]:
        """The `outcome` of each case as a document, once it was a dataclass; those that are not there yet are kept."""
        todo = [case for case in cases if not self.has(case.name)]
        for number, (case, found) in enumerate(zip(todo, each(outcome, todo), strict=True), len(cases) - len(todo) + 1):
            self.keep(case.name, asdict(found))
            if sys.stderr.isatty():
                print(f"\r{number} of {len(cases)}: {case.name}    ", end="", file=sys.stderr, flush=True)
        return [self.read(case.name) for case in cases]

    def fail(self, name: str, cause: str, run_directory: Path) -> None:
        """A phase went wrong: what is known of it."""
        _write_json(self._failure(name), {"phase": name, "cause": cause, "run_directory": str(run_directory)})

    def outcomes(self, runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
        """Of all phases of `runs` that went well."""
        yield from (self.read(name) for run in runs for name in run.names() if self.has(name))

    def failures(self) -> list[dict[str, Any]]:
        """Of all phases that went wrong and were not made good since."""
        return [json.loads(path.read_text()) for path in sorted(self._raw.glob("*.failed.json"))]

    def _outcome(self, name: str) -> Path:
        return self._raw / f"{name}.json"

    def _failure(self, name: str) -> Path:
        return self._raw / f"{name}.failed.json"


def digests(references: Iterable[str]) -> dict[str, str]:
    """Of the files in which policies of the user's lie, FILE.py:NAME: a series of others is another one."""
    files = {reference.rpartition(":")[0] for reference in references}
    return {file: hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in sorted(files)}


def seed_of(path: Path) -> int | None:
    """The seed of the series begun at `path`, if there is one."""
    try:
        return int(json.loads((path / "series.json").read_text())["seed"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def clear(path: Path) -> None:
    """Forget the series at `path`, and touch nothing else that may lie there."""
    if (path / "series.json").exists():
        shutil.rmtree(path / "raw", ignore_errors=True)
        (path / "series.json").unlink()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Files are written meanwhile, there or in that folder; UserError if one cannot be."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {error.filename or path}: {error.strerror}: choose another --out") from None


def _write_json(path: Path, document: Any) -> None:
    """Write it whole or not at all; UserError."""
    temporary = path.with_name(f".{path.name}")
    with writing(path):
        with temporary.open("w") as file:
            json.dump(document, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def seconds(run: Run) -> float:
    """About how long a run takes: as its workloads last on average, cut where they are."""
    return NETWORK_S + sum(phase.settle_s + _expected_s(phase.workload) for phase in run.phases)


def remaining(done: Sequence[Run], todo: Sequence[Run], took_s: float) -> float:
    """About how many seconds `todo` takes, where `done` took `took_s`: a slow machine is so to the end."""
    expected = sum(map(seconds, done))
    return sum(map(seconds, todo)) * (took_s / expected if expected else 1.0)


def _expected_s(workload: Workload) -> float:
    """About how long a workload lasts: all arrivals, and the longest of the last sessions."""
    return workload.applications * workload.gap_s.mean + workload.length_s.longest


def _check_same(begun: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    for name in sorted({*begun, *wanted}):
        if begun.get(name) != wanted.get(name):
            shown = [json.dumps(d.get(name))[:60] for d in (begun, wanted)]
            raise UserError(
                f"{path} holds a series with other settings ({name}: {shown[0]}, not {shown[1]}):"
                " choose another --out, or --again to begin anew"
            )
