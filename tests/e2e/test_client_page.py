"""docs/client.md does what it says: everything in it is run as printed, in its order, against a PoliQI started so.

Fenced blocks of `sh`, `python` and `console` (the run's command line) are run; a `json` or `text` block shows the
answer of the block before it. Two things are replaced in what is run: `runs/latest` by the folder of the tests' own
run, because another run may start meanwhile, and the ports 9440 to 9450 by the ones at which this run is published,
because those may be taken. The blocks of `sh` share one shell, as a reader's do.
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from testbed.topology_document import build
from testbed.topology_field import Field
from tests.e2e.running import ROOT, Running, until

PAGE = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
FIRST_PORT = 9440
END = "--- end of block, status "


@dataclass(frozen=True)
class Block:
    """What is to be run, in which language, in which section, and the answer that the page shows."""

    language: str
    text: str
    section: str
    answer: str


def blocks(*languages: str) -> list[Block]:
    """The page's blocks in these languages, in order."""
    fence = re.compile(r"^## ([^\n]+)$|^```(\w+)\n(.*?)^```$", re.M | re.S)
    found: list[Block] = []
    section = ""
    for heading, language, text in fence.findall(PAGE):
        if heading:
            section = heading
        elif language in ("json", "text"):
            found[-1] = Block(found[-1].language, found[-1].text, found[-1].section, text)
        else:
            found.append(Block(language, text, section, ""))
    return [block for block in found if block.language in languages]


SHELL = blocks("sh")
IDS = [f"{i}-{block.section.split(':')[0].replace(' ', '-')}" for i, block in enumerate(SHELL)]


def here(text: str, run: Running) -> str:
    """A text of the page with this run's folder and ports in it."""
    first = int(json.loads((run.directory / "expose.json").read_text())["controller"].rpartition(":")[2])
    text = text.replace("runs/latest", str(run.directory))
    return re.sub(r"\b94[45]\d\b", lambda port: str(int(port[0]) - FIRST_PORT + first), text)


def shape(value: Any, name: str = "") -> Any:
    """What two answers of one kind share: members and types, and the words of messages."""
    if isinstance(value, dict):
        return {member: shape(inner, member) for member, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return value if name == "message" else type(value).__name__


def assert_same_kind(printed: str, shown: str) -> None:
    """The answer is of the kind that the page shows."""
    assert shape(json.loads(printed)) == shape(json.loads(shown)), printed


@pytest.fixture(scope="module")
def stocked(exposed: Running) -> Running:
    """The run, when it has been up for so long that the page's keys do not wait for material."""
    def keys() -> int:
        done = subprocess.run(["sh", "-c", here(SHELL[0].text, exposed)], capture_output=True, text=True, check=True)
        return int(json.loads(done.stdout)["stored_key_count"])

    assert until(lambda: keys() >= 12, 30)
    return exposed


@pytest.fixture(scope="module")
def outputs(stocked: Running) -> list[tuple[int, str]]:
    """Exit status and output of each block of `sh`, all run in one shell."""
    script = "".join(f'{block.text}status=$?; echo; echo "{END}$status"\n' for block in SHELL)
    done = subprocess.run(
        ["bash"], input=here(script, stocked), capture_output=True, text=True, check=False, timeout=60, cwd=ROOT
    )
    assert not done.stderr, done.stderr
    parts = re.split(rf"^{END}(\d+)\n", done.stdout, flags=re.M)
    return [(int(status), text) for text, status in zip(parts[::2], parts[1::2], strict=False)]


@pytest.mark.parametrize(("index", "block"), list(enumerate(SHELL)), ids=IDS)
def test_command_works_as_printed(outputs, index, block):
    """Exit status 0, and an answer of the kind that the page shows."""
    status, printed = outputs[index]

    assert status == 0, printed
    assert_same_kind(printed, block.answer)


def test_key_fetched_by_the_slave_is_the_one_asked_for(outputs):
    """The page's ways to hand an ID over hand over the right one: bob cannot have it twice."""
    again = next(i for i, block in enumerate(SHELL) if "not found on KME" in block.answer)

    assert "not found on KME" in outputs[again][1]


def test_python_example_works_as_printed(stocked):
    """With the standard library of the machine's own Python; and it says what the page says."""
    (block,) = blocks("python")
    script, command = here(block.text, stocked), ["/usr/bin/python3", "-"]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False, cwd=ROOT)

    assert (done.returncode, done.stdout) == (0, block.answer), done.stderr


def test_host_of_the_network_can_call_its_kme(stocked):
    """At the command line, on the host itself."""
    (block,) = blocks("console")
    before = len(stocked.text)

    stocked.cli(here(block.text.removeprefix("qkd-testbed> ").strip(), stocked))

    found = until(lambda: re.search(r"\{.*\}", stocked.text[before:]))
    assert_same_kind(found[0], block.answer)


def test_topology_file_of_the_page_is_one(exposed):
    """Two external SAEs with the IDs that it gives."""
    (block,) = blocks("yaml")
    topology = build(Field("mine.yaml", "", yaml.safe_load(block.text)))

    assert [(s.name, s.external) for s in topology.saes] == [("vpn-north", True), ("vpn-south", True)]


def test_ids_and_nodes_of_the_page_are_those_of_the_network(exposed):
    """The table of alice, bob and carol."""
    saes = json.loads((exposed.directory / "expose.json").read_text())["saes"]
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)`.*`([0-9a-f-]{36})` \|$", PAGE, re.M)

    assert [(name, saes[name]["node"], saes[name]["id"]) for name, _, _ in rows] == rows
    assert len(rows) == 3
