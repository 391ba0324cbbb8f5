"""A real browser without a screen, which calls nobody by itself."""

from __future__ import annotations

from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

# Without these Chromium calls home: for updates, for what its vendor thinks of a page, to see whether there is a network.
_QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-extensions",
    "--disable-features=OptimizationHints,MediaRouter,DialMediaRouteProvider,Translate", "--metrics-recording-only",
    "--no-default-browser-check", "--disable-dev-shm-usage", "--force-prefers-reduced-motion",
)  # fmt: skip


def chromium(profile: Path, *, size: tuple[int, int] = (1920, 1080)) -> Chrome:
    """A Chromium with an empty profile, whose console and requests can be read; the caller quits it."""
    options = ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (*_QUIET, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return Chrome(options, ChromeService("/usr/bin/chromedriver", log_output=str(profile.with_suffix(".log"))))
