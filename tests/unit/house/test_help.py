"""Every command that a page names says what it does when it is asked for help, and does nothing else."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.unit.house.test_pages import PAGES, ROOT

# What `make bench` and all targets that begin so call.
TARGETS = re.findall(r"^(bench[\w-]*):.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
BENCHMARKS = sorted({module for _, recipe in TARGETS for module in re.findall(r"-m ([\w.]+)", recipe)})
NAMED = {m for page in PAGES for m in re.findall(r"-m ((?:testbed|tests)\.[\w.]+\w)", page.read_text())}
MODULES = sorted(NAMED - {*BENCHMARKS})
COMMANDS = [
    ["testbed/run.py"], ["testbed/run.py", "simulate"], ["testbed/run.py", "experiment"],
    ["testbed/run.py", "experiment", "policies"], ["testbed/run.py", "conformance"],
    ["-m", "testbed.qkd"], *(["-m", module] for module in MODULES),
]  # fmt: skip


def called(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_helps(command):
    done = called(*command, "--help")

    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.split()) > 10


def test_benchmarks_are_those_of_the_makefile():
    """So that none of them is left out below."""
    assert {"testbed.bench.bench", "tests.benchmarks.day"} <= {*BENCHMARKS}
    assert len(TARGETS) == 8


@pytest.mark.parametrize("module", BENCHMARKS)
def test_help_of_a_benchmark_says_what_it_measures_its_options_and_how_long_it_takes(module):
    """And does nothing else."""
    told = called("-m", module, "--help")

    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith(f"usage: python -m {module} [-h]")
    assert f"`python -m {module}`: " in told.stdout
    assert re.search(r"^It takes .*(minute|hour).* on two cores\.$", told.stdout, re.MULTILINE)


def test_benchmark_that_is_mistyped_is_refused_and_does_nothing():
    refused = called("-m", "testbed.bench.bench_014", "--hepl")

    assert (refused.returncode, refused.stdout) == (2, "")
    assert "unrecognized arguments: --hepl" in refused.stderr
