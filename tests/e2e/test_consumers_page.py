"""docs/consumers.md does what it says; page.py says how it is run."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.support.page import assert_same_kind, blocks, do, here, names, read, run_shell, wait_for_stock
from tests.support.running import PYTHON, ROOT
from tests.support.transcript import PROMPT, steps
from tests.support.waiting import PATIENCE

PAGE = read("consumers.md")
SHELL, PROGRAMS = blocks(PAGE, "sh"), blocks(PAGE, "python")
TYPED = blocks(PAGE, "console")


@pytest.mark.parametrize("block", TYPED, ids=names(TYPED))
def test_tunnel_comes_and_goes_as_printed(exposed, block):
    """At the run's command line, line by line."""
    exposed.wait_for(rf"\n{PROMPT}")
    for step in steps(block.text):
        do(exposed, step)


@pytest.mark.parametrize("block", PROGRAMS, ids=names(PROGRAMS))
def test_program_works_as_printed(exposed, block):
    """With the Python that the project has set up; and it says what the page says."""
    wait_for_stock(exposed, 2)
    done = subprocess.run(
        [PYTHON, "-"], input=here(block.text, exposed), capture_output=True, text=True, check=False, cwd=ROOT,
        timeout=60 * PATIENCE,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (0, block.answer), done.stderr


def test_commands_of_a_shell_work_as_printed(exposed):
    """In one shell: set-up of a product, its request, and a file that goes sealed from alice to bob."""
    wait_for_stock(exposed, 2)
    outputs = run_shell(SHELL, exposed)

    assert [status for status, _ in outputs] == [0] * len(SHELL)
    set_up, asked, sealed = [printed.strip() for _, printed in outputs]
    assert set_up == ""
    assert_same_kind(asked, SHELL[1].answer)
    assert sealed == SHELL[2].answer.strip()


def test_each_row_of_the_table_leads_to_a_section_that_is_run():
    """But for none: what the page offers, it shows."""
    sections = set(re.findall(r"\[below\]\(#(.+?)\)", PAGE))

    assert sections == {block.section.lower().replace(" ", "-") for block in (*SHELL, *PROGRAMS, *TYPED)}
