"""A storm over one network: gust after gust, until one has not healed or all are over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from sae.rekey import GO_ON
from telemetry.journal import Journal
from testbed import audit
from testbed.emulation import Emulation
from testbed.errors import UserError
from testbed.isolation import undisturbed
from testbed.plan import Plan
from testbed.run_directory import RunDirectory
from testbed.storm import gusts
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
# What may be half done although it failed.
_HALF_DONE = (gusts.SET, gusts.DISK)


def rage(plan: Plan, directory: RunDirectory, storm: Sequence[Gust], within_s: float, outside: int) -> int:
    """As the first process of new namespaces: a network, and `storm` over it; the result is in the run directory.

    After each gust the network has to be whole within `within_s` seconds.
    """
    disks = Disks(plan, directory)
    emulation = Emulation(
        plan, directory, outside=outside, parameters={"ttl_slots": 15}, seed=None, user_database=None,
        say=lambda _: None, habits={"on_key_failure": GO_ON},
    )  # fmt: skip
    result = Result()
    try:
        emulation.start()
        _Storm(emulation, disks, result, within_s).rage(storm)
    finally:
        with undisturbed():
            emulation.stop()
            disks.keep()
            last = storm[max(0, result.gusts - 1)].number
            result.findings += [f"audit after gust {last}: {text}" for text in _audit(directory)]
            directory.write(RESULT, result.to_json())
    return 0


def _audit(directory: RunDirectory) -> Sequence[str]:
    try:
        return audit.load(directory.path).findings
    except ValueError as error:
        return [str(error)]


class _Storm:
    """The storm over a network that is up; `result` is told as it comes."""

    def __init__(self, emulation: Emulation, disks: Disks, result: Result, within_s: float) -> None:
        self._emulation = emulation
        self._result = result
        self._injector = Injector(emulation, disks)
        self._strangers = Strangers(emulation, self._note)
        self._watch = Watch(emulation, self._injector, self._strangers, within_s=within_s)
        self._journal = Journal(emulation.run.make("storm") / "journal.jsonl", "storm")
        self._lock = threading.Lock()
        self._gust = 0

    def rage(self, storm: Sequence[Gust]) -> None:
        """Gust after gust; before the first the network has to be whole without one."""
        self._strangers.start()
        try:
            calm = Gust(0, storm[0].mode, storm[0].before, ())
            for gust in (calm, *storm):
                if self._weather(gust).healed_s is None:
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
        for done in under_way:
            done.result()
        outcome = self._watch.until_whole(gust, time.monotonic())
        for text in outcome.findings:
            self._find(text)
        self._journal.event("over", number=gust.number, healed_s=outcome.healed_s)
        if gust.blows:
            self._result.gusts += 1
            ms = None if outcome.healed_s is None else round(outcome.healed_s * 1000)
            for blow in gust.blows:
                self._result.healed_ms.setdefault(blow.kind, []).append(ms)
        healed = "NOT HEALED       " if outcome.healed_s is None else f"healed in {outcome.healed_s:4.1f} s"
        print(f"gust {gust.number:4}  {gust.mode:5}  {healed}  {'; '.join(map(str, gust.blows))}", flush=True)
        return outcome

    def _set_mode(self, mode: str) -> None:
        try:
            self._injector.desk.set_parameter("mode", mode)
        except UserError as error:
            self._find(f"mode {mode}: {error}")

    def _strike(self, blow: Blow) -> None:
        """One fault, from its beginning until it is undone."""
        time.sleep(blow.at_s)
        done = self._try(blow, "fault", lambda: self._injector.break_(blow))
        time.sleep(blow.for_s)
        if not done and blow.kind not in _HALF_DONE:
            return
        deadline = time.monotonic() + _MEND_S
        while not self._try(blow, "healed", lambda: self._injector.heal(blow)):
            if time.monotonic() > deadline:
                self._find(f"{blow}: cannot be undone, see storm/journal.jsonl")
                return
            time.sleep(_AGAIN_S)

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
