"""`python -m testbed.story RUN ID > STORY.svg`: the story of a key, a key session or a trace as a picture.

With `--text` after it the same for the terminal; without ID the last stories of the run that can be told.
"""

from __future__ import annotations

import sys
from pathlib import Path

from testbed.machine import output
from testbed.stories import journals, svg, text
from testbed.stories.model import NoStory

_USAGE = "usage: python -m testbed.story RUN [ID [--text]]"


def main(arguments: list[str]) -> int:
    """Print what is asked for; the exit status."""
    as_text = arguments[2:] == ["--text"]
    if len(arguments) not in (1, 2) and not as_text:
        print(_USAGE, file=sys.stderr)
        return 2
    run = Path(arguments[0])
    try:
        if len(arguments) == 1:
            sys.stdout.write(text.index(journals.latest(run)))
        else:
            story = journals.read(run, arguments[1])
            sys.stdout.write(text.draw(story) if as_text else svg.draw(story))
    except (NoStory, OSError) as error:
        print(f"story: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(output.run(lambda: main(sys.argv[1:])))
