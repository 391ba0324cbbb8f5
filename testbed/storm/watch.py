"""Whether a network is whole again after a gust: keys for every pair, sessions, settings, processes, logs."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mtls.call import Unreachable
from telemetry.bugs import MARK
from testbed.errors import UserError
from testbed.network.emulation import Emulation
from testbed.storm.gusts import KILL, Gust, Pair, forgotten
from testbed.storm.injector import Injector
from testbed.storm.strangers import Strangers

# How much longer to look: whether something heals late or not at all is worth knowing.
_LATE_S = 50.0
_LOOK_S = 0.2
_TRACEBACK = "Traceback (most recent call last)"


@dataclass(frozen=True, slots=True)
class Outcome:
    """After a gust: how long the network took to be whole, in s (None: it is not), and what was not so, in words."""

    healed_s: float | None
    findings: Sequence[str]


class Watch:
    """Looks at the network of `emulation`, which has to be whole within `within_s` seconds."""

    def __init__(self, emulation: Emulation, injector: Injector, strangers: Strangers, *, within_s: float) -> None:
        self._within_s = within_s
        self._emulation = emulation
        self._injector = injector
        self._strangers = strangers
        self._logs = Logs(emulation.run.path / "logs")

    def until_whole(self, gust: Gust, since: float, refused: Collection[Pair] = ()) -> Outcome:
        """What became of the network after `gust`, whose last fault was healed at `since` (monotonic clock).

        `refused`: the pairs whose session was to be opened or ended meanwhile, which was not done.
        """
        with ThreadPoolExecutor(2) as pool:
            served = pool.submit(self._strangers.served, since, since + self._within_s + _LATE_S)
            rest = pool.submit(self._settle, gust, since, refused)
            findings = [f"pair {pair}: {why}" for pair, t in served.result().items() if (why := self._late(t))]
            settled, lacking = rest.result()
        times = [settled, *served.result().values()]
        whole = None if any(isinstance(t, str) or t is None for t in times) else max(float(t) for t in times if t)
        return Outcome(whole, [*findings, *lacking, *self._logs.bugs()])

    def _settle(self, gust: Gust, since: float, refused: Collection[Pair]) -> tuple[float | None, list[str]]:
        """After how many seconds nothing was lacking (None: never), and what was after the time for it."""
        killed = [blow.on[0] for blow in gust.blows if blow.kind == KILL]
        lost = forgotten(self._emulation.plan, killed, gust.after)
        state = Sessions(self._injector, gust.after, lost, refused)
        late: list[str] = []
        while True:
            lacking = self._lacking(gust, state)
            passed = time.monotonic() - since
            if not lacking:
                return passed, [f"{text} (healed after {passed:.1f} s)" for text in late]
            if passed > self._within_s:
                late = late or lacking
                if passed > self._within_s + _LATE_S:
                    return None, [f"{text} (still after {passed:.0f} s)" for text in lacking]
            time.sleep(_LOOK_S)

    def _late(self, found: float | str) -> str:
        """What is wrong with the time after which a pair was served, or with why it was not; empty if nothing is."""
        if isinstance(found, str):
            return f"not served after {self._within_s + _LATE_S:.0f} s: {found}"
        return f"served after {found:.1f} s" if found > self._within_s else ""

    def _lacking(self, gust: Gust, sessions: Sessions) -> list[str]:
        checks: list[Callable[[], Iterator[str]]] = [
            self._dead, sessions.lacking, lambda: self._settings(gust.mode), self._dark,
        ]  # fmt: skip
        found: list[str] = []
        for check in checks:
            try:
                found += check()
            except (UserError, Unreachable) as error:
                found.append(str(error))
        return found

    def _dead(self) -> Iterator[str]:
        for process in self._emulation.dead():
            yield f"process {process.name} has ended: {process.last_words()}"

    def _settings(self, mode: str) -> Iterator[str]:
        wanted = {**self._injector.standard, "mode": mode}
        if (found := self._injector.do("parameters")) != wanted:
            yield f"controller: parameters are {found}, expected {wanted}"
        for node in self._emulation.plan.nodes:
            told = self._injector.do("node", name=node)["parameters"]
            for name, value in told.items():
                if value != wanted.get(name, value):
                    yield f"node {node}: {name} is {value}, expected {wanted[name]}"

    def _dark(self) -> Iterator[str]:
        for qc in self._injector.do("qcs"):
            if not qc["enabled"]:
                yield f"QC {qc['qc']} is switched off"
            elif qc["status"] != "ACTIVE":
                yield f"QC {qc['qc']} is {qc['status']}"


class Sessions:
    """The key sessions that are to be open, and whether keys came since this was made.

    `lost` are those of which an application knows no more, since it was killed. A master opens them anew, as one that
    was started again does; one whose slave was killed ends them first, by itself. What was `refused` is asked for again
    until it is done, as any operator does, and nothing else.
    """

    def __init__(
        self, injector: Injector, wanted: Sequence[Pair], lost: Sequence[Pair] = (), refused: Collection[Pair] = ()
    ) -> None:
        self._injector = injector
        self._wanted = wanted
        self._to_be_done = {*lost, *refused}
        for pair in lost:
            with contextlib.suppress(UserError):  # nobody may know of it any more
                if pair[1] not in {s["peer"] for s in injector.sessions_of(pair[0])}:
                    injector.end(*pair)
            self._again(injector.open, pair)
        self._before: dict[str, int] | None = None  # keys by KSID

    def lacking(self) -> Iterator[str]:
        """What is not so."""
        found = {(s["master"], s["slave"]): s for s in self._injector.do("sessions") if not s["implicit"]}
        for pair in self._wanted:
            session = found.get(pair)
            if session is None:
                yield f"{_name(pair)} is not there{self._again(self._injector.open, pair)}"
            elif session["state"] != "open" or session["interruption"]:
                yield f"{_name(pair)} is {session['interruption'] or session['state']}"
        for pair in found:
            if pair not in self._wanted:
                yield f"{_name(pair)} has ended, and is there{self._again(self._injector.end, pair)}"
        yield from self._without_keys({pair: found[pair]["ksid"] for pair in self._wanted if pair in found})

    def _again(self, step: Callable[[str, str], None], pair: Pair) -> str:
        """Try it once more if it was not done; why it still is not, in words, empty if it is."""
        if pair not in self._to_be_done:
            return ""
        try:
            step(*pair)
        except UserError as error:
            return f": {error}"
        self._to_be_done.discard(pair)
        return ""

    def _without_keys(self, ksids: dict[Pair, str]) -> Iterator[str]:
        masters = {master for master, _ in self._wanted}
        documents = {s["ksid"]: s for master in masters for s in self._injector.sessions_of(master)}
        if self._before is None:
            self._before = {ksid: s["keys"] for ksid, s in documents.items()}
        for pair, ksid in ksids.items():
            if ksid not in documents:
                yield f"{_name(pair)} is open, and its master has none{self._again(self._injector.open, pair)}"
            elif documents[ksid]["keys"] <= self._before.get(ksid, 0):
                yield f"{_name(pair)} gets no keys: {documents[ksid]['errors']}"


def _name(pair: Pair) -> str:
    return f"session {pair[0]} with {pair[1]}"


class Logs:
    """What processes write to their standard error, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}

    def bugs(self) -> list[str]:
        """What they tell of bugs since the last look: a line for each, the exception's of a traceback."""
        found = []
        for path in sorted(self._folder.glob("*.log")):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                data = file.read()
            self._read[path] = self._read.get(path, 0) + len(data)
            found += [f"{path.name}: {line}" for line in _errors(data.decode(errors="replace").splitlines())]
        return found


def _errors(lines: Sequence[str]) -> Iterator[str]:
    for i, line in enumerate(lines):
        if MARK in line:
            yield line
        elif _TRACEBACK in line:
            frames = itertools.dropwhile(lambda text: text.startswith((" ", "\t")), lines[i + 1 :])
            yield f"traceback: {next(frames, 'cut off')}"
