"""JSON of other parties. While one thread reads a text, the interpreter lets no other thread run.

A text of brackets takes seconds that, of the same length, has been read in hundredths when it is honest: what counts
are lists, objects and members, each of which has a sign of its own. So their number has a bound, beside the length.
"""

from __future__ import annotations

import json
from typing import Any

MOST_PARTS = 100_000  # of a message: more than an honest one of a megabyte has
MOST_PARTS_OF_ANSWER = 500_000  # of what somebody asked to see: a node with ten thousand links and applications


def loads(text: bytes, most_parts: int = MOST_PARTS, **options: Any) -> Any:
    """As json.loads; ValueError, also for more lists, objects and members than `most_parts`.

    Signs within strings count, too: honest ones have few.
    """
    if text.count(b"[") + text.count(b"{") + text.count(b":") > most_parts:
        raise ValueError("expected fewer parts")
    return json.loads(text.decode("utf-8-sig"), **options)
