"""Asks for what a viewer wants, without holding up the page, and says what came of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from nicegui import run

from telemetry import bugs
from testbed.dashboard.widgets import Tag
from testbed.errors import UserError
from testbed.operation.desk import NotDone

T = TypeVar("T")
_log = logging.getLogger(__name__)
_BUG = "this met a bug of ours; the network goes on, the traceback is in the run's log"


class Operator:
    """The viewer as operator, whose requests `request` does as those of all operators.

    `said` is where the page says what was done last.
    """

    def __init__(self, request: Callable[..., Any], said: Tag) -> None:
        self.request = request
        self._said = said

    async def do(self, step: Callable[[], T], done: Callable[[T], str]) -> T | None:
        """The result of `step`, called in a thread; None if it was not done. `done` puts it into words."""
        self._said.say("… under way")
        try:
            result: T = await run.io_bound(step)  # type: ignore[assignment]  # None only while the server stops
        except (NotDone, UserError) as error:
            self.say(f"✕ {error}", bad=True)
            return None
        except Exception as error:
            bugs.report(_log, "what a viewer asked for", error)
            what = f"the machine refuses: {scarce}" if (scarce := bugs.refused(error)) else _BUG
            self.say(f"✕ {what}", bad=True)
            return None
        self.say(f"✓ {done(result)}")
        return result

    def say(self, text: str, *, bad: bool = False) -> None:
        """Say something to the viewer."""
        self._said.look("said bad" if bad else "said")
        self._said.say(text)
