"""`python -m testbed.story RUN ID > STORY.svg`: the story of a key, a key session or a trace as a picture."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from testbed.machine import output
from testbed.stories import journals, svg, text
from testbed.stories.model import NoStory


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m testbed.story", description="The story of a key, a key session or a trace, as SVG."
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="directory of a run, which may be over")
    parser.add_argument(
        "ident", metavar="ID", nargs="?",
        help="key ID, KSID or trace ID; without it the last stories that can be told are listed",
    )  # fmt: skip
    parser.add_argument("--text", action="store_true", help="for the terminal in place of SVG")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Print what is asked for; the exit status."""
    given = _parser().parse_args(arguments)
    try:
        if given.ident is None:
            sys.stdout.write(text.index(journals.latest(given.run)))
        else:
            story = journals.read(given.run, given.ident)
            sys.stdout.write(text.draw(story) if given.text else svg.draw(story))
    except (NoStory, OSError) as error:
        print(f"story: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(output.run(lambda: main(sys.argv[1:])))
