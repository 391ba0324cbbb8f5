"""How to start Chromium without a screen, so that it shows one page and calls nobody by itself."""

from __future__ import annotations

PROGRAM = "/usr/bin/chromium"
# Without these it calls home: for updates, for what its vendor thinks of a page, to see whether there is a network.
QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-extensions",
    "--disable-features=OptimizationHints,MediaRouter,DialMediaRouteProvider,Translate", "--metrics-recording-only",
    "--no-default-browser-check", "--disable-dev-shm-usage",
)  # fmt: skip
