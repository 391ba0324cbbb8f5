"""Does what a viewer asks for, through the desk, without holding up the page, and says what came of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from nicegui import run

from testbed.dashboard.widgets import Tag
from testbed.desk import Desk, NotDone
from testbed.errors import UserError

T = TypeVar("T")


class Operator:
    """The viewer as operator; `said` is where the page says what was done last."""

    def __init__(self, desk: Desk, said: Tag) -> None:
        self.desk = desk
        self._said = said

    async def do(self, step: Callable[[], T], done: Callable[[T], str]) -> T | None:
        """The result of `step`, called in a thread; None if it was not done. `done` puts it into words."""
        self._said.say("… under way")
        try:
            result: T = await run.io_bound(step)  # type: ignore[assignment]  # None only while the server stops
        except (NotDone, UserError) as error:
            self.say(f"✕ {error}", bad=True)
            return None
        self.say(f"✓ {done(result)}")
        return result

    def say(self, text: str, *, bad: bool = False) -> None:
        """Say something to the viewer."""
        self._said.look("said bad" if bad else "said")
        self._said.say(text)
