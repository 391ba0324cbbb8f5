"""A benchmark's network: a run of its own in namespaces of its own, taken down and cleaned up whatever happens."""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
from collections.abc import Callable
from pathlib import Path

from decisions.parameters import TTL
from testbed.errors import UserError
from testbed.machine.isolation import run_isolated, undisturbed
from testbed.machine.run_directory import RunDirectory, open_run_directory
from testbed.machine.tools import check_tools, clean_environment
from testbed.network.emulation import Emulation
from testbed.planning.plan import Plan
from testbed.stages.bring_up import bring_up
from testbed.stages.prepare import Wishes

ROOT = Path(__file__).resolve().parents[2]


def options(takes: str) -> argparse.ArgumentParser:
    """A benchmark's command line. `--help` tells the docstring of the module that was called, and how long it takes."""
    called = sys.modules["__main__"]
    return argparse.ArgumentParser(
        prog="python" if called.__spec__ is None else f"python -m {called.__spec__.name}",
        description=called.__doc__, epilog=f"It takes {takes} on two cores.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip


def bench(name: str, body: Callable[[], int]) -> int:
    """The exit status of a benchmark called `name`, once it is clear that all tools are there."""
    clean_environment()
    try:
        check_tools()
        return body()
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2


def with_network(plan: Plan, body: Callable[[Emulation], int | None]) -> int:
    """The exit status of `body`, called with the network of `plan` up; 0 if it gives none."""
    directory = open_run_directory(None, ROOT / "runs", latest=False)
    try:
        return run_isolated(
            functools.partial(_inside, plan, directory, body),
            pid_file=directory.path / "init.pid",
            crash_log=directory.path / "crash.log",
        )
    finally:
        directory.erase_secrets()


def _inside(plan: Plan, directory: RunDirectory, body: Callable[[Emulation], int | None], outside: int) -> int:
    wishes, down = Wishes({TTL.name: TTL.default}), contextlib.ExitStack()
    try:
        return body(bring_up(plan, directory, wishes, outside=outside, say=lambda _: None, down=down)) or 0
    finally:
        with undisturbed():
            down.close()
