"""A story for the terminal: lifelines from left to right, time downwards, what was said at the right. PURE."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from documents.paths import in_words
from testbed.stories.model import Heading, Message, Story, Use

# Characters: the column of times, the narrowest lifeline's column, the longest name shown.
_TIME, _NARROWEST, _LONGEST = 13, 8, 16
_LONGEST_LABEL = 100  # an error's text may be a page


def draw(story: Story) -> str:
    """The story, as lines of text."""
    return "\n".join([*_head(story), "", *_diagram(story), "", *_tail(story)]).rstrip() + "\n"


def amount(use: Use) -> str:
    """A range in words."""
    return f"{use.qc} [{use.start}, {use.end}) {use.purpose}"


def milliseconds(value: float) -> str:
    """A duration, short and readable."""
    return f"{value:.1f} ms" if value < 1000 else f"{value / 1000:.2f} s"


def label(message: Message) -> str:
    """What a message is, how long it took, and how it failed."""
    took = "" if message.duration_ms is None else f", {milliseconds(message.duration_ms)}"
    failed = f"  FAILED: {message.outcome[:_LONGEST_LABEL]}" if message.failed else ""
    return f"{message.what[:_LONGEST_LABEL]}{took}{failed}"


def _head(story: Story) -> Iterator[str]:
    yield story.title
    if story.ksid and story.ksid != story.ident:
        yield f"key session {story.ksid}"
    if story.path:
        yield f"path {in_words(story.paths)}"
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(story.begin_s))
    yield f"from {moment}.{int(story.begin_s % 1 * 1000):03d}, {milliseconds((story.end_s - story.begin_s) * 1000)}"
    if story.failure:
        yield f"FAILED: {story.failure}"


def _diagram(story: Story) -> Iterator[str]:
    stems, header = _columns([p.name for p in story.participants])
    place = {p.id: stem for p, stem in zip(story.participants, stems, strict=True)}
    bare = "".join("|" if i in stems else " " for i in range(len(header)))
    yield " " * _TIME + header
    for message in story.messages:
        at = f"+{(message.at_s - story.begin_s) * 1000:.1f} ms"
        line = _arrow(bare, place[message.sender], place[message.receiver], broken=message.failed)
        yield f"{at:>{_TIME - 1}} {line}  {'. ' * message.depth}{label(message)}"
        for use in message.ranges:
            yield f"{'':{_TIME}}{bare}  {'. ' * message.depth}    {amount(use)}"


def _columns(names: Sequence[str]) -> tuple[list[int], str]:
    """Where lifelines stand, and the names above them."""
    stems: list[int] = []
    header = ""
    for name in names:
        shown = name[:_LONGEST].center(max(_NARROWEST, len(name[:_LONGEST]) + 2))
        stems.append(len(header) + len(shown) // 2)
        header += shown
    return stems, header


def _arrow(bare: str, start: int, end: int, *, broken: bool) -> str:
    line = list(bare)
    if start == end:
        line[start] = "x" if broken else "o"
        return "".join(line)
    low, high = sorted((start, end))
    line[low + 1 : high] = "-" * (high - low - 1)
    line[high - 1 if end > start else low + 1] = "x" if broken else ">" if end > start else "<"
    return "".join(line)


def _tail(story: Story) -> Iterator[str]:
    if story.learned:
        yield "who learned it:"
        wide = max(len(entry.node) for entry in story.learned)
        for entry in story.learned:
            yield f"  {entry.node:{wide}}  {entry.what}: {entry.how}"
    if story.material and story.refill:
        yield "made of, when it was made ahead:"
        yield from (f"  {amount(use)}" for use in story.material)
    yield from _notes(story.notes)
    yield from (f"captured: {file} (what crosses it is TLS: who talks to whom, no key)" for file in story.captures)
    if story.traces:
        yield f"trace {', '.join(story.traces)}"


def _notes(notes: Sequence[str]) -> Iterator[str]:
    for note in notes:
        yield f"note: {note}"


def index(headings: Sequence[Heading]) -> str:
    """Stories that can be told, a line each."""
    if not headings:
        return "no story can be told yet\n"
    broad = max(len(h.outcome) for h in headings)
    lines = [
        f"{time.strftime('%H:%M:%S', time.localtime(h.at_s))}  {h.ident:36}  {h.what:18}  {h.outcome:{broad}}"
        f"  {' → '.join(h.pair)}"
        for h in headings
    ]
    return "\n".join(lines) + "\n"
