"""`python -m tests.e2e.screenshot VIEW.png STORY.svg`: pictures of a PoliQI with something going on.

The live view, and the story of a key over a trusted relay.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from selenium.webdriver.common.by import By

from testbed.stories import journals, svg
from tests.support.browser import chromium
from tests.support.running import Running
from tests.support.waiting import until

_SIZE = (1920, 1250)
_KEYS = 150
# What makes the picture tell something: a slow fibre, and a session that nothing can carry.
_SCENE = (
    "qkd fibre university-government delay 20ms",
    "qkd set generation finance-university/1 off",
    "qkd set admission reserve",
)


def main(view: Path, story: Path) -> int:
    """Write the pictures; the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        run = Running(Path(folder) / "run", "--sessions", 10, "--seed", 4)
        try:
            run.wait_up()
            address = re.search(r"live view at (\S+)", run.text)
            browser = chromium(Path(folder) / "profile", size=_SIZE)
            try:
                for line in _SCENE:
                    run.cli(line)
                browser.get(f"{address[1] if address else ''}?look=link:university-government")
                until(lambda: _keys(browser.find_element(By.CSS_SELECTOR, ".headline").text) >= _KEYS, 120)
                browser.save_screenshot(str(view))
            finally:
                browser.quit()
            story.write_text(_story(run.directory))
        finally:
            run.stop()
    print(f"written: {view}, {story}")
    return 0


def _story(run: Path) -> str:
    """Of the first key over two hops in BASIC: both applications have it by now."""
    keys = [h.ident for h in journals.latest(run, 1000) if h.what == "key, basic, 2 hops"]
    return svg.draw(journals.read(run, keys[0]))


def _keys(headline: str) -> int:
    found = re.search(r"(\d+) keys delivered", headline)
    return int(found[1]) if found else 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
