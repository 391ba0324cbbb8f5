"""docs/controller.md does what it says; page.py says how it is run."""

from __future__ import annotations

import re

import pytest

from node.tree.model import node_id
from tests.support.page import assert_same_kind, blocks, names, read, run_shell
from tests.support.running import Running

PAGE = read("controller.md")
SHELL = blocks(PAGE, "sh")


@pytest.fixture(scope="module")
def outputs(exposed: Running) -> list[tuple[int, str]]:
    """Exit status and output of each block of `sh`."""
    return run_shell(SHELL, exposed)


@pytest.mark.parametrize(("index", "block"), list(enumerate(SHELL)), ids=names(SHELL))
def test_command_works_as_printed(outputs, index, block):
    """Exit status 0, and an answer of the kind that the page shows; HTTP statuses are the same."""
    status, printed = outputs[index]

    assert status == 0, printed
    assert_same_kind(printed, block.answer)
    if block.answer.strip().isdigit():
        assert printed.strip() == block.answer.strip()


def test_hops_of_the_example_are_the_neighbours_of_its_node():
    """military lies between government and telecom."""
    hops = re.search(r'"virt_prev_hop": "(.*?)", "virt_next_hop": \["(.*?)"\]', PAGE)

    assert hops is not None
    assert hops.groups() == (node_id("government"), node_id("telecom"))
