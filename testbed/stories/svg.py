"""A story as SVG: a sequence diagram in black on white, each message in a row of its own. PURE.

Greyscale by design, as testbed/pictures.py: kinds of lines and words tell everything, so that it reads on any projector
and in print. A row belongs to one text, so that no two can lie over each other.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from documents.paths import in_words
from testbed.stories.model import Message, Story
from testbed.stories.text import amount, label, milliseconds

_MARGIN, _TIMES, _COLUMN, _ROW, _LINE, _HEAD = 20, 80, 130, 34, 17, 30
_CHARACTER = 7.2  # width of one at most, at 13 pixels of a sans-serif font
_INDENT = 12
_STYLE = (
    "text{font-family:sans-serif;font-size:13px;fill:#111}"
    ".title{font-weight:bold;font-size:17px}.name{font-weight:bold;text-anchor:middle}"
    ".time{fill:#555;text-anchor:end}.range{fill:#444;font-style:italic}.failed{font-weight:bold}"
    ".life{stroke:#aaa;stroke-width:1}.head{fill:#fff;stroke:#111;stroke-width:1.5}"
    ".said{stroke:#111;stroke-width:1.6}.broken{stroke:#111;stroke-width:1.6;stroke-dasharray:5 4}"
    ".tip,.did{fill:#111}.backing{fill:#fff}"
)


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text and the box that it fills: left edge, baseline, width."""

    x: float
    y: float
    width: float
    words: str
    kind: str = ""


def draw(story: Story) -> str:
    """The story as an SVG document."""
    place = {p.id: _MARGIN + _TIMES + _COLUMN // 2 + i * _COLUMN for i, p in enumerate(story.participants)}
    rows, bottom = _rows(story)
    texts = list(layout(story))
    width = max([_MARGIN + t.x + t.width for t in texts] + [2 * _MARGIN + _TIMES + _COLUMN * len(place)])
    height = max(t.y for t in texts) + _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
        f"<title>{escape(story.title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#fff"/>',
    ]
    top = _heads_at(story)
    for participant in story.participants:
        x = place[participant.id]
        parts.append(f'<line class="life" x1="{x}" y1="{top + _HEAD}" x2="{x}" y2="{bottom}"/>')
        left, wide = x - _COLUMN // 2 + 6, _COLUMN - 12
        parts.append(f'<rect class="head" x="{left}" y="{top}" width="{wide}" height="{_HEAD}"/>')
    for message, y in zip(story.messages, rows, strict=True):
        parts += _line(place[message.sender], place[message.receiver], y, broken=message.failed)
    parts += [p for t in texts for p in _text(t)]
    return "\n".join([*parts, "</svg>"]) + "\n"


def layout(story: Story) -> Iterator[Text]:
    """Every text of the picture, where it stands."""
    y = _MARGIN + 14
    for i, words in enumerate(_heading(story)):
        yield _at(_MARGIN, y, words, "title" if not i else "")
        y += _LINE + (4 if not i else 0)
    top = _heads_at(story)
    place = {}
    for i, participant in enumerate(story.participants):
        place[participant.id] = x = _MARGIN + _TIMES + _COLUMN // 2 + i * _COLUMN
        words = participant.name if len(participant.name) <= 15 else participant.name[:14] + "…"
        width = len(words) * _CHARACTER
        yield Text(x - width / 2, top + 20, width, words, "name")
    rows, bottom = _rows(story)
    for message, row in zip(story.messages, rows, strict=True):
        yield from _said(story, message, row, min(place[message.sender], place[message.receiver]))
    y = bottom + _LINE + 8
    for words in _footer(story):
        yield _at(_MARGIN, y, words)
        y += _LINE


def _said(story: Story, message: Message, row: float, x: int) -> Iterator[Text]:
    at = f"+{(message.at_s - story.begin_s) * 1000:.1f} ms"
    width = len(at) * _CHARACTER
    yield Text(_MARGIN + _TIMES - width - 8, row + 4, width, at, "time")
    # Beside what somebody did, above what somebody said.
    own = message.sender == message.receiver
    yield _at(x + _INDENT, row + 4 if own else row - 6, label(message), "failed" if message.failed else "")
    for i, use in enumerate(message.ranges, start=1):
        yield _at(x + 2 * _INDENT, row + (4 if own else 1) + i * _LINE, amount(use), "range")


def _rows(story: Story) -> tuple[list[int], int]:
    """Where the messages' lines are, and where the lifelines end."""
    y = _heads_at(story) + _HEAD + _ROW
    rows = []
    for message in story.messages:
        rows.append(y)
        y += _ROW + _LINE * len(message.ranges)
    return rows, y - _ROW + _LINE


def _heads_at(story: Story) -> int:
    return _MARGIN + 22 + _LINE * (len(list(_heading(story))) - 1) + 12


def _heading(story: Story) -> Iterator[str]:
    yield story.title
    facts = [f"path {in_words(story.paths, ' – ')}"] if story.path else []
    if story.ksid and story.ksid != story.ident:
        facts.append(f"key session {story.ksid}")
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(story.begin_s))
    yield "; ".join([*facts, f"{moment}, {milliseconds((story.end_s - story.begin_s) * 1000)} in all"])
    if story.failure:
        yield f"FAILED: {story.failure}"


def _footer(story: Story) -> Iterator[str]:
    if story.learned:
        yield "Who learned it:"
        yield from (f"    {entry.node} – {entry.what}: {entry.how}" for entry in story.learned)
    if story.refill and story.material:
        yield "Made ahead of: " + ", ".join(map(amount, story.material))
    yield from story.notes
    yield from (f"Captured: {file}" for file in story.captures)
    yield f"Trace {', '.join(story.traces)}"


def _at(x: float, y: float, words: str, kind: str = "") -> Text:
    size = _CHARACTER * (1.35 if kind == "title" else 1.1 if kind == "failed" else 1)
    return Text(x, y, len(words) * size, words, kind)


def _text(text: Text) -> Iterator[str]:
    x = {"name": text.x + text.width / 2, "time": text.x + text.width}.get(text.kind, text.x)
    if text.kind not in ("name", "title"):
        yield (
            f'<rect class="backing" x="{text.x - 2:.0f}" y="{text.y - 11:.0f}" width="{text.width:.0f}" height="14"/>'
        )
    kind = f' class="{text.kind}"' if text.kind else ""
    yield f'<text{kind} x="{x:.0f}" y="{text.y:.0f}" xml:space="preserve">{escape(text.words)}</text>'


def _line(start: int, end: int, y: int, *, broken: bool) -> Sequence[str]:
    if start == end:
        done = f'<rect class="did" x="{start - 4}" y="{y - 5}" width="8" height="10"/>'
        return [_cross(start, y) if broken else done]
    kind = "broken" if broken else "said"
    back = -8 if end > start else 8
    tip = f'<path class="tip" d="M{end} {y}l{back} -4v8z"/>' if not broken else _cross(end + back, y)
    return [f'<line class="{kind}" x1="{start}" y1="{y}" x2="{end}" y2="{y}"/>', tip]


def _cross(x: int, y: int) -> str:
    return f'<path class="said" d="M{x - 5} {y - 5}l10 10m0 -10l-10 10"/>'
