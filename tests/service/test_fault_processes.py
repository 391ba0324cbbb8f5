"""Faults on real processes, of which there need not be a network."""

from __future__ import annotations

import signal
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from unittest.mock import Mock

import pytest

from scenario.topology import load
from telemetry import journal
from telemetry.journal import Journal
from testbed.errors import UserError
from testbed.machine.processes import Process, Processes
from testbed.network.faults import Faults
from testbed.planning.make import make_plan
from tests.support.waiting import until

TOPOLOGIES = Path(__file__).resolve().parents[2] / "topologies"


class World:
    """Faults of PoliQI: its controller and a node are processes that sleep."""

    def __init__(self, directory: Path) -> None:
        self.journal = directory / "faults.jsonl"
        self.lives = directory / "journal.jsonl"
        self.processes = Processes(directory)
        self.silent: list[set[str]] = []
        self.off: list[set[str]] = []
        self.eve: list[dict[str, float]] = []
        self.network = Mock()
        self.faults = Faults(
            make_plan(load("poliqi", TOPOLOGIES)), self.processes, Journal(self.journal, "faults"),
            set_carrier=self.network.set_carrier, set_port=self.network.set_port, break_qcs=self.broken, database=None,
            leader=Mock(),
        )  # fmt: skip
        for name in ("controller", "node-finance"):
            self.processes.start(name, ["sleep", "600"], says_ready=False)

    def broken(self, silent: Collection[str], off: Collection[str], eve: Mapping[str, float]) -> None:
        """QCs are broken, or listened to."""
        self.silent.append(set(silent))
        self.off.append(set(off))
        self.eve.append(dict(eve))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """One."""
    made = World(tmp_path)
    yield made
    made.processes.stop()


def state(process: Process) -> str:
    """As Linux says it in one letter: T is stopped by a signal."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0]


def command_line(process: Process) -> bytes:
    """Of a process that runs. Linux shows none for a moment while the program is being loaded."""
    return until(lambda: Path(f"/proc/{process.pid}/cmdline").read_bytes())


def names(world: World) -> list[str]:
    """What is broken."""
    return [fault.name for fault in world.faults.active()]


@pytest.mark.parametrize(("fault", "process"), [(("controller",), "controller"), (("node", "finance"), "node-finance")])
def test_killed_process_did_not_die_on_its_own_and_starts_again(world, fault, process):
    """With the same command; the journal has when."""
    command = command_line(world.processes.named(process))
    world.faults.inject(*fault)
    assert not world.processes.named(process).alive()
    assert world.processes.named(process).status == -9
    assert world.processes.dead() == []
    assert names(world) == [" ".join(fault)]

    world.faults.heal(*fault)

    assert world.processes.named(process).alive()
    assert command_line(world.processes.named(process)) == command
    assert names(world) == []
    assert [(e["event"], e["kind"]) for e in journal.read(world.journal)] == [("fault", fault[0]), ("healed", fault[0])]


def test_processes_that_do_not_serve_are_named_with_the_reason(world):
    """A fault has killed one or has it sleep, or it died; what is healed serves again."""
    assert world.processes.away() == {}
    world.faults.inject("node", "finance")
    assert world.processes.away() == {"node-finance": "killed"}
    world.faults.heal("node", "finance")
    world.faults.inject("pause", "finance")
    assert until(lambda: world.processes.away() == {"node-finance": "asleep"})
    world.processes.named("controller").signal(9)
    assert until(lambda: world.processes.away() == {"node-finance": "asleep", "controller": "DEAD"})


def test_run_tells_of_the_processes_that_it_begins_kills_and_has_sleep(world):
    """In a journal of its own, by which the audit knows whom an end excuses; who dies on his own is not killed."""
    world.faults.inject("pause", "finance")
    world.faults.heal("pause", "finance")
    world.faults.inject("node", "finance")
    world.faults.heal("node", "finance")
    world.processes.named("controller").signal(9)
    assert until(lambda: not world.processes.named("controller").alive())
    world.processes.named("controller").kill()

    told = [(e["event"], e["process"]) for e in journal.read(world.lives)]

    assert told == [
        ("begun", "controller"), ("begun", "node-finance"), ("paused", "node-finance"), ("woken", "node-finance"),
        ("killed", "node-finance"), ("begun", "node-finance"),
    ]  # fmt: skip


def test_process_that_does_not_stop_when_it_is_asked_is_killed_and_told_of(world):
    """It cannot say that it stopped."""
    deaf = world.processes.start("deaf", ["sh", "-c", "trap '' TERM; echo ready; exec sleep 600"])
    deaf.wait_ready()

    deaf.stop(timeout_s=0.2)

    assert [(e["event"], e["process"]) for e in journal.read(world.lives)][-1] == ("killed", "deaf")


def test_process_that_died_on_its_own_is_no_fault_of_ours(world):
    """It stays among the dead, whom the summary names."""
    world.processes.named("controller").signal(9)
    while world.processes.named("controller").alive():
        pass

    with pytest.raises(UserError, match="controller has ended on its own already"):
        world.faults.inject("controller")
    assert [p.name for p in world.processes.dead()] == ["controller"]


def test_paused_process_sleeps_until_it_is_healed(world):
    """Nobody takes it for dead."""
    process = world.processes.named("node-finance")
    world.faults.inject("pause", "finance")
    assert until(lambda: state(process) == "T")
    assert process.alive()
    assert names(world) == ["pause finance"]

    world.faults.heal("pause", "finance")

    assert until(lambda: state(process) == "S")
    assert names(world) == []


def test_paused_process_ends_as_asked_at_the_end_of_a_run(world):
    """It wakes up for that, in place of being killed in its sleep."""
    process = world.processes.named("node-finance")
    world.faults.inject("pause", "finance")

    process.stop()

    assert process.status == -signal.SIGTERM


def test_what_is_down_by_one_fault_is_not_broken_by_another(world):
    """And that is said in these words."""
    world.faults.inject("node", "finance")

    with pytest.raises(UserError, match="fault pause finance: node-finance is down by another fault: heal that first"):
        world.faults.inject("pause", "finance")
    assert names(world) == ["node finance"]


def test_qcs_are_silent_as_long_as_a_fault_wants_it(world):
    """A cut takes the QC of the fibre along, and gives back only what no other fault holds."""
    world.faults.inject("qc", "military", "government")
    world.faults.inject("cut", "government", "military")
    world.faults.inject("qc", "telecom", "finance")
    world.faults.heal("cut", "military", "government")
    world.faults.heal()

    ab, tf = "government-military/1", "telecom-finance/1"
    assert world.silent == [{ab}, {ab}, {ab, tf}, {ab, tf}, {tf}, set()]
    assert [call.args[1] for call in world.network.set_carrier.call_args_list] == [False, True]


def test_devices_without_power_say_nothing_until_all_that_is_healed(world):
    """A broken QC beside it goes on to say that there is no key."""
    world.faults.inject("device", "finance", "telecom")
    world.faults.inject("qc", "military", "government")
    world.faults.heal("device", "telecom", "finance")

    ab, tf = "government-military/1", "telecom-finance/1"
    assert world.silent == [{tf}, {ab, tf}, {ab}]
    assert world.off == [{tf}, {tf}, set()]


def test_eavesdropper_comes_and_goes(world):
    """With her share of the pulses, which stands in the journal, too."""
    world.faults.inject("eve", "finance", "telecom", "0.3")
    assert [fault.name for fault in world.faults.active()] == ["eve telecom finance 0.3"]
    with pytest.raises(UserError, match="broken already"):
        world.faults.inject("eve", "telecom", "finance")
    world.faults.heal("eve", "telecom", "finance")

    assert world.eve == [{"telecom-finance/1": 0.3}, {}]
    assert world.silent == [set(), set()]
    assert [e["fraction"] for e in journal.read(world.journal, "fault")] == [0.3]


def test_what_cannot_be_is_one_line(world):
    """A database of the user's, what is broken already, what is not broken."""
    world.faults.inject("cut", "government", "military")
    for step, said in (
        (lambda: world.faults.inject("database"), "the database is yours"),
        (lambda: world.faults.inject("cut", "military", "government"), "cut government military is broken already"),
        (lambda: world.faults.heal("node", "finance"), "node finance is not broken: 'qkd fault' lists what is"),
    ):
        with pytest.raises(UserError, match=said) as error:
            step()
        assert "\n" not in str(error.value)
    assert names(world) == ["cut government military"]
