"""The story of a key or of a key session: who said what to whom, and which nodes learned the key."""

from __future__ import annotations

import base64
from pathlib import Path

from testbed.dashboard.operator import Operator
from testbed.dashboard.widgets import Panel, Tag, button
from testbed.errors import UserError
from testbed.stories import journals, svg, text
from testbed.stories.model import NoStory, Story


class StoryPanel:
    """Told when it is asked for; not there before."""

    def __init__(self, operator: Operator, run: Path) -> None:
        self._operator = operator
        self._run = run
        with Panel("story", "Story") as panel:
            self._panel = panel
            button("Close the story", lambda: panel.element.set_visibility(False))
            self._content = Tag("div")
        panel.element.set_visibility(False)

    async def tell(self, ident: str) -> None:
        """Show the story of a key ID or a KSID."""
        story = await self._operator.do(lambda: _read(self._run, ident), lambda found: found.title)
        if story is None:
            return
        self._panel.element.set_visibility(True)
        self._panel.title.say(f"Story: {story.title}")
        self._content.clear()
        with self._content:
            _show(story)
        self._panel.element.run_method("scrollIntoView")


def _read(run: Path, ident: str) -> Story:
    try:
        return journals.read(run, ident)
    except NoStory as error:
        raise UserError(str(error)) from None


def _show(story: Story) -> None:
    # As an image: the picture has styles of its own, which are to stay in it.
    encoded = base64.b64encode(svg.draw(story).encode()).decode()
    Tag("img", "", "picture", src=f"data:image/svg+xml;base64,{encoded}", alt=f"{story.title}: as text below")
    if story.learned:
        Tag("h3", "Who learned it")
        with Tag("ul"):
            for node in story.learned:
                Tag("li", f"{node.node}: {node.what} — {node.how}")
    with Tag("details"):
        Tag("summary", "The story as text")
        Tag("pre", text.draw(story))
