"""Stories as pictures and as text."""

from __future__ import annotations

import itertools
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from testbed.stories import svg, text
from testbed.stories.model import Message, Participant, Use
from testbed.stories.tell import tell
from tests.unit.testbed.stories.test_tell import BASIC, EVENTS, EVERYTHING, SESSION

_NAMES = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("ident", EVERYTHING)
def test_no_text_lies_over_another(ident):
    """Each has a place of its own, inside the picture."""
    story = tell(EVENTS, ident)
    root = ElementTree.fromstring(svg.draw(story))  # noqa: S314 - our own
    _, _, width, height = map(float, root.get("viewBox").split())

    boxes = [(t.x, t.y - 11, t.x + t.width, t.y + 3) for t in svg.layout(story)]

    assert all(left >= 0 and right <= width and top >= 0 and bottom <= height for left, top, right, bottom in boxes)
    for (a, top, b, bottom), (c, above, d, below) in itertools.combinations(boxes, 2):
        assert b <= c or d <= a or bottom <= above or below <= top


@pytest.mark.parametrize("ident", EVERYTHING)
def test_picture_and_text_say_the_same(ident):
    """Every participant, message and range is in both."""
    story = tell(EVENTS, ident)
    root = ElementTree.fromstring(svg.draw(story))  # noqa: S314 - our own
    drawn, written = [e.text for e in root.iter(f"{_NAMES}text")], text.draw(story)

    wanted = [p.name for p in story.participants] + [text.label(m) for m in story.messages]
    wanted += [text.amount(u) for m in story.messages for u in m.ranges]
    assert set(wanted) <= set(drawn)
    assert all(words in written for words in wanted)
    assert len(list(root.iter(f"{_NAMES}line"))) == len(story.participants) + sum(
        m.sender != m.receiver for m in story.messages
    )


def test_picture_is_in_black_white_and_grey():
    """It reads in print and on any projector."""
    colours = {part.split("}")[0].split(";")[0] for part in svg.draw(tell(EVENTS, SESSION)).split("#")[1:]}

    assert {c.split('"')[0] for c in colours} <= {"fff", "111", "444", "555", "aaa"}


def test_whatever_a_party_is_called_the_picture_is_well_formed():
    """Names and error texts come from others."""
    nasty = '<script>"&\'</script>'
    story = replace(
        tell(EVENTS, BASIC), participants=[Participant("x", nasty)], failure=nasty, notes=[nasty],
        messages=[Message("x", "x", nasty, 0.0, None, nasty, [Use(nasty, 0, 1, nasty)])],
    )  # fmt: skip

    assert ElementTree.fromstring(svg.draw(story)).find(f"{_NAMES}script") is None  # noqa: S314 - our own
