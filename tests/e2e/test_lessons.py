"""docs/lessons/ does what it says: one network, started as each lesson says, and every line that follows its prompt."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.page import blocks, do, read
from tests.support.running import Running
from tests.support.transcript import PROMPT, Step, steps
from tests.support.waiting import PATIENCE

# In the order of the index. Each leaves the network as it found it, or ends the run, and the next one has another.
LESSONS = re.findall(r"^\| \[\d\. .*?\]\((\S+\.md)\)", read("lessons/README.md"), re.M)
PAGES = {name: read(f"lessons/{name}") for name in LESSONS}
STEPS = {n: [step for block in blocks(page, "console") for step in steps(block.text)] for n, page in PAGES.items()}
Printed = dict[str, list[tuple[Step, str]]]


class Network:
    """A run, started as the lessons say; another one when that has ended."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.runs: list[Running] = []

    def running(self) -> Running:
        """The run that is at its prompt."""
        if self.runs and self.runs[-1].process.poll() is None:
            return self.runs[-1]
        (command,) = {block.text.strip() for page in PAGES.values() for block in blocks(page, "sh")}
        words = shlex.split(command)
        assert words[:3] == ["sudo", "python", "testbed/run.py"]
        self.runs.append(Running(self._directory / f"lessons-{len(self.runs)}", *words[3:]))
        self.runs[-1].wait_up()
        self.runs[-1].wait_for(rf"\n{PROMPT}")
        return self.runs[-1]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """What the lessons are typed at."""
    found = Network(tmp_path_factory.mktemp("e2e"))
    try:
        yield found
    finally:
        for run in found.runs:
            run.stop()


@pytest.fixture(scope="module")
def printed() -> Printed:
    """What was printed at each step of the lessons so far."""
    return {}


@pytest.mark.timeout(240 * PATIENCE)
@pytest.mark.parametrize("lesson", LESSONS)
def test_lesson_works_as_printed(network, printed, lesson):
    """Each line is typed, and what it prints is what the page shows."""
    assert STEPS[lesson]

    running = network.running()
    printed[lesson] = [(step, do(running, step)) for step in STEPS[lesson]]


def test_no_key_is_delivered_below_the_floors_of_the_latency_lesson(printed):
    """The delivery times of its steps, beside the round trips in its table: one hop, two hops, from the pool.

    Its pairs of applications are in no lesson before it, so that their stories are of keys over the slow links.
    """
    floors = [float(ms) for ms in re.findall(r"^\| .* \| (\d+) ms \|$", PAGES["latency.md"], re.M)]
    measured = [
        float(found[1])
        for step, text in printed["latency.md"]
        if step.command.startswith("qkd story") and (found := re.search(r"Get key, ([\d.]+) ms", text))
    ]

    assert len(floors) == len(measured) == 3
    assert [m >= f for m, f in zip(measured, floors, strict=True)] == [True] * 3, measured


def test_run_of_the_lessons_ends_well(network, printed):
    """After all faults and overloads: exit status 0, which says that no key pair differed and the audit was clean."""
    assert printed["faults.md"][-1][0].command == "exit"
    assert network.runs[0].process.wait(60 * PATIENCE) == 0

    network.running().cli("exit")
    assert network.runs[-1].process.wait(60 * PATIENCE) == 0
    assert len(network.runs) == 2


def test_every_lesson_has_a_picture_and_asks_and_its_answers_stand_in_a_file_of_their_own():
    """Four to six questions, each with its answer."""
    answers = dict(re.findall(r"^## (.*)\n((?:(?!## ).*\n?)*)", read("lessons/answers.md"), re.M))
    for name, page in PAGES.items():
        title = page.splitlines()[0].removeprefix("# ")
        _, questions = page.split("## Questions\n")
        asked = re.findall(r"^(\d)\. ", questions, re.M)

        assert 4 <= len(asked) <= 6
        assert re.findall(r"^(\d)\. ", answers[title], re.M) == asked
        assert f"]({name.removesuffix('.md')}.svg)" in page

