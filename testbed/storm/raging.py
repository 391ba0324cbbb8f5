"""A storm over one network: gust after gust, until one has not healed or all are over."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from decisions.parameters import TTL
from decisions.rekey import GO_ON
from telemetry import journal
from telemetry.journal import Journal
from testbed import audit
from testbed.errors import UserError
from testbed.machine.isolation import undisturbed
from testbed.machine.run_directory import RunDirectory
from testbed.network.emulation import Emulation
from testbed.planning.databases import SINGLE
from testbed.planning.plan import Plan, process_of
from testbed.stages.bring_up import bring_up
from testbed.stages.prepare import Wishes
from testbed.storm import gusts
from testbed.storm.devices import Devices
from testbed.storm.disks import Disks
from testbed.storm.gusts import Blow, Gust
from testbed.storm.injector import Injector
from testbed.storm.result import Result
from testbed.storm.strangers import Exchange, Strangers
from testbed.storm.watch import Outcome, Watch

RESULT = "storm.json"
# What a fault left broken is mended by whoever runs the network; when that does not work, for so long once more.
_MEND_S = 60.0
_AGAIN_S = 0.5
# What the network is asked for, and may refuse under other faults; all else is done to it.
_ASKED = (gusts.SET, gusts.OPEN, gusts.END)
# What may be half done although it failed.
_HALF_DONE = (gusts.SET, gusts.DISK)


def rage(
    plan: Plan, directory: RunDirectory, storm: Sequence[Gust], outside: int, *, faults: int, within_s: float,
    devices: Devices | None,
) -> int:  # fmt: skip
    """As the first process of new namespaces: a network, and `storm` over it; the result is in the run directory.

    It ends when there were so many `faults`. After each gust the network has to be whole within `within_s` seconds.
    `devices`: those that QCs of the plan have, if any have real ones.
    """
    disks = Disks(plan, directory)
    wishes = Wishes({TTL.name: TTL.default}, habits={"on_key_failure": GO_ON})
    result, down = Result(), contextlib.ExitStack()
    try:
        if devices is not None:
            down.callback(devices.stop)
            devices.start(outside)
        emulation = bring_up(plan, directory, wishes, outside=outside, say=lambda _: None, down=down)
        _Storm(emulation, Injector(emulation, disks, devices), result, within_s).rage(storm, faults)
    finally:
        with undisturbed():
            down.close()
            disks.keep()
            last = storm[max(0, result.gusts - 1)].number
            result.takeovers = _takeovers(plan, directory)
            result.findings += [f"audit after gust {last}: {text}" for text in _audit(directory)]
            directory.write(RESULT, result.to_json())
    return 0


def _takeovers(plan: Plan, directory: RunDirectory) -> dict[str, int]:
    """How often the part of the leader, or of the host that takes writes, went to another one, where there are such."""
    found = {}
    if len(plan.controllers) > 1:
        folders = [directory.path / process_of(each.name) for each in plan.controllers]
        leaders = [event for folder in folders for event in journal.read(folder / "journal.jsonl", "leads")]
        found["controller"] = max(0, len(leaders) - 1)
    if plan.database != SINGLE:
        found["database"] = len(list(journal.read(directory.path / "faults" / "journal.jsonl", "database_switch")))
    return found


def _audit(directory: RunDirectory) -> Sequence[str]:
    try:
        return audit.load(directory.path).findings
    except ValueError as error:
        return [str(error)]


class _Storm:
    """The storm over a network that is up; `result` is told as it comes."""

    def __init__(self, emulation: Emulation, injector: Injector, result: Result, within_s: float) -> None:
        self._emulation = emulation
        self._result = result
        self._within_s = within_s
        self._injector = injector
        self._strangers = Strangers(emulation, self._note)
        self._watch = Watch(emulation, self._injector, self._strangers, within_s=within_s)
        self._journal = Journal(emulation.run.make("storm") / "journal.jsonl", "storm")
        self._lock = threading.Lock()
        self._gust = 0

    def rage(self, storm: Sequence[Gust], faults: int) -> None:
        """Gust after gust, up to so many faults; before the first the network has to be whole without one."""
        self._strangers.start()
        try:
            calm = Gust(0, storm[0].mode, storm[0].before, ())
            for gust in (calm, *storm):
                if self._weather(gust).healed_s is None or self._result.faults >= faults:
                    return
        finally:
            self._strangers.close()
            self._injector.close()
            self._result.exchanges = dict(self._strangers.counted)

    def _weather(self, gust: Gust) -> Outcome:
        self._gust = gust.number
        self._journal.event("gust", number=gust.number, mode=gust.mode, blows=[str(blow) for blow in gust.blows])
        self._set_mode(gust.mode)
        with ThreadPoolExecutor(len(gust.blows) or 1) as pool:
            under_way = [pool.submit(self._strike, blow) for blow in gust.blows]
        struck = [blow for blow, done in zip(gust.blows, under_way, strict=True) if done.result()]
        vain = [blow for blow in gust.blows if blow not in struck]
        refused = [(blow.on[0], blow.on[1]) for blow in vain if blow.kind in (gusts.OPEN, gusts.END)]
        # In the calm before the first gust nothing is open yet.
        outcome = self._watch.until_whole(gust, time.monotonic(), refused if gust.blows else gust.before)
        for text in outcome.findings:
            self._find(text)
        self._journal.event("over", number=gust.number, healed_s=outcome.healed_s)
        if gust.blows:
            self._result.gusts += 1
            ms = None if outcome.healed_s is None else round(outcome.healed_s * 1000)
            for blow in struck:
                self._result.healed_ms.setdefault(blow.kind, []).append(ms)
            for blow in vain:
                self._result.refused[blow.kind] = self._result.refused.get(blow.kind, 0) + 1
        healed = "NOT HEALED       " if outcome.healed_s is None else f"healed in {outcome.healed_s:4.1f} s"
        print(f"gust {gust.number:4}  {gust.mode:5}  {healed}  {'; '.join(map(str, gust.blows))}", flush=True)
        return outcome

    def _set_mode(self, mode: str) -> None:
        """As an operator does, who tries again for as long as a network may take to heal: a gust was over just now."""
        deadline = time.monotonic() + self._within_s
        while True:
            try:
                self._injector.do("set", name="mode", value=mode)
                return
            except UserError as error:
                if time.monotonic() > deadline:
                    self._find(f"mode {mode}: {error}")
                    return
            time.sleep(_AGAIN_S)

    def _strike(self, blow: Blow) -> bool:
        """One fault, from its beginning until it is undone; whether there was one."""
        time.sleep(blow.at_s)
        done = self._try(blow, "fault", lambda: self._injector.break_(blow))
        if not done and blow.kind not in _ASKED:
            self._find(f"{blow}: was not done, see storm/journal.jsonl")
        time.sleep(blow.for_s)
        if not done and blow.kind not in _HALF_DONE:
            return False
        deadline = time.monotonic() + _MEND_S
        while not self._try(blow, "healed", lambda: self._injector.heal(blow)):
            if time.monotonic() > deadline:
                self._find(f"{blow}: cannot be undone, see storm/journal.jsonl")
                break
            time.sleep(_AGAIN_S)
        return done

    def _try(self, blow: Blow, event: str, step: Callable[[], None]) -> bool:
        """Whether a step was done; under other faults it may not be."""
        try:
            step()
        except UserError as error:
            self._journal.event(event, blow=str(blow), not_done=str(error))
            return False
        self._journal.event(event, blow=str(blow))
        return True

    def _note(self, pair: str, exchange: Exchange) -> None:
        """An exchange of foreign clients failed."""
        self._journal.event("exchange_failed", pair=pair, failure=exchange.failure)
        if exchange.broken:
            self._find(f"pair {pair}: {exchange.broken}")

    def _find(self, text: str) -> None:
        finding = f"gust {self._gust}: {text}"
        with self._lock:
            if finding not in self._result.findings:
                self._result.findings.append(finding)
                self._journal.event("finding", text=finding)
                print(f"FINDING    {finding}", flush=True)
