"""docs/client.md does what it says; page.py says how it is run."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
import yaml

from scenario.topology_description import Field
from scenario.topology_document import build
from tests.support.page import assert_same_kind, blocks, here, names, read, run_shell, wait_for_stock
from tests.support.running import ROOT, Running
from tests.support.waiting import until

PAGE = read("client.md")
SHELL = blocks(PAGE, "sh")


@pytest.fixture(scope="module")
def stocked(exposed: Running) -> Running:
    """The run, when it has been up for so long that the page's keys do not wait for material."""
    wait_for_stock(exposed, 12)
    return exposed


@pytest.fixture(scope="module")
def outputs(stocked: Running) -> list[tuple[int, str]]:
    """Exit status and output of each block of `sh`."""
    return run_shell(SHELL, stocked)


@pytest.mark.parametrize(("index", "block"), list(enumerate(SHELL)), ids=names(SHELL))
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
    (block,) = blocks(PAGE, "python")
    script, command = here(block.text, stocked), ["/usr/bin/python3", "-"]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False, cwd=ROOT)

    assert (done.returncode, done.stdout) == (0, block.answer), done.stderr


def test_host_of_the_network_can_call_its_kme(stocked):
    """At the command line, on the host itself."""
    (block,) = blocks(PAGE, "console")
    before = len(stocked.text)

    stocked.cli(here(block.text.removeprefix("qkd-testbed> ").strip(), stocked))

    found = until(lambda: re.search(r"\{.*\}", stocked.text[before:]))
    assert_same_kind(found[0], block.answer)


def test_topology_file_of_the_page_is_one(exposed):
    """Two external SAEs with the IDs that it gives."""
    (block,) = blocks(PAGE, "yaml")
    topology = build(Field("mine.yaml", "", yaml.safe_load(block.text)))

    assert [(s.name, s.external) for s in topology.saes] == [("vpn-north", True), ("vpn-south", True)]


def test_ids_and_nodes_of_the_page_are_those_of_the_network(exposed):
    """The table of alice, bob and carol."""
    saes = json.loads((exposed.directory / "expose.json").read_text())["saes"]
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)`.*`([0-9a-f-]{36})` \|$", PAGE, re.M)

    assert [(name, saes[name]["node"], saes[name]["id"]) for name, _, _ in rows] == rows
    assert len(rows) == 3
