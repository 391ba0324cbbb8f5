"""`python -m tests.e2e.screenshot FILE.png`: the live view of a PoliQI with something going on, as a picture."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from selenium.webdriver.common.by import By

from tests.e2e.browser import chromium
from tests.e2e.running import Running, until

_SIZE = (1600, 1250)
_KEYS = 150
# What makes the picture tell something: a slow fibre, and a session that nothing can carry.
_SCENE = (
    "qkd link university-government delay 20ms",
    "qkd set generation finance-university/1 off",
    "qkd set admission reserve",
)


def main(file: Path) -> int:
    """Write the picture; the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        run = Running(Path(folder) / "run", "--apps", 10, "--seed", 4)
        try:
            run.wait_up()
            address = re.search(r"live view at (\S+)", run.text)
            browser = chromium(Path(folder) / "profile", size=_SIZE)
            try:
                for line in _SCENE:
                    run.cli(line)
                browser.get(f"{address[1] if address else ''}?look=link:university-government")
                until(lambda: _keys(browser.find_element(By.CSS_SELECTOR, ".headline").text) >= _KEYS, 120)
                browser.save_screenshot(str(file))
            finally:
                browser.quit()
        finally:
            run.stop()
    print(f"written: {file}")
    return 0


def _keys(headline: str) -> int:
    found = re.search(r"(\d+) keys delivered", headline)
    return int(found[1]) if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
