"""Transcripts in docs/: what is typed at a run's prompt and what is shown then, compared as a reader would. PURE.

The page shows what a real run printed. IDs, times of day, durations, and figures after `~` are others in every run;
`...` stands for what was left out, within a line or, alone on one, for any number of lines. Everything else is printed
as it stands there, but for the width of columns.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PROMPT = "qkd-testbed> "
_LINES = r"(?:[^\n]*\n)*?"
_ID = r"\b(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32})\b"
_FIGURE = r"-?\d+(?:\.\d+)?"
_TIME = r"\d\d:\d\d:\d\d(?:\.\d+)?"
_DURATION = r"\d+(?:\.\d+)? m?s\b"
# What a page may hold, and what may then be printed in its place.
_VARYING = (
    (r"\.\.\.", r"[^\n]*?"),
    (_ID, _ID),
    (_TIME, _TIME),
    (_DURATION, _DURATION),
    (f"~{_FIGURE}", _FIGURE),
    (r"\s+", r"[^\S\n]+"),
)
_PIECE = re.compile("|".join(f"({shown})" for shown, _ in _VARYING))
# Commands that change nothing: typed again until they show what the page shows.
_LOOKS = re.compile(
    r"qkd (status|qcs|fibres|links|sessions|refusals|saes|set|fault|story( .*)?|fibre \S+ \S+( measure)?"
    r"|vpn( .* story)?)|\S+ (ping|curl) .*"
)


@dataclass(frozen=True, slots=True)
class Step:
    """A line that is typed, and what the page shows below it."""

    command: str
    shown: str

    @property
    def looks(self) -> bool:
        """Whether it only looks, so that it can be typed again."""
        return _LOOKS.fullmatch(self.command) is not None

    def is_shown_by(self, printed: str) -> bool:
        """Whether this is what the page shows."""
        lines = [_LINES if line.strip() == "..." else f"{_line(line)}\n" for line in self.shown.splitlines()]
        # Blank lines tell nothing.
        there = "".join(f"{line.strip()}\n" for line in printed.splitlines() if line.strip())
        return re.fullmatch("".join(lines), there) is not None


def steps(block: str) -> list[Step]:
    """The steps of a fenced block, in order."""
    _, *parts = re.split(rf"^{PROMPT}", block, flags=re.M)
    found = [part.partition("\n") for part in parts]
    return [Step(command.strip(), _without_blank_lines(shown)) for command, _, shown in found]


def _without_blank_lines(text: str) -> str:
    return "".join(f"{line}\n" for line in text.splitlines() if line.strip())


def _line(shown: str) -> str:
    """A pattern for a line of the page."""
    pattern, end, text = "", 0, shown.strip()
    for piece in _PIECE.finditer(text):
        pattern += re.escape(text[end : piece.start()]) + _VARYING[(piece.lastindex or 1) - 1][1]
        end = piece.end()
    return pattern + re.escape(text[end:])
