"""A real browser, to be driven by a test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from testbed.bench.bench_view import PROGRAM, QUIET


def chromium(profile: Path, *, size: tuple[int, int] = (1920, 1080)) -> Chrome:
    """A Chromium with an empty profile, whose console and requests can be read; the caller quits it."""
    options = ChromeOptions()
    options.binary_location = PROGRAM
    for flag in (*QUIET, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return Chrome(options, ChromeService("/usr/bin/chromedriver", log_output=str(profile.with_suffix(".log"))))


@contextlib.contextmanager
def screen(browser: Chrome, size: tuple[int, int], *, enlarged: int = 1) -> Iterator[None]:
    """A screen of that size in pixels, on which pages are shown so many times as large as usual.

    A browser lays them out in fewer pixels then, each of which is larger.
    """
    width, height = size[0] // enlarged, size[1] // enlarged
    media = {"width": width, "height": height, "deviceScaleFactor": enlarged, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", media)
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
