"""docs/vpn.md works as printed: each command is typed at the command line of a run of PoliQI."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.running import ROOT, Running

PAGE = ROOT / "docs" / "vpn.md"
# What each command of the page's first block leads to.
LEADS_TO = {
    "qkd vpn government finance": r"wireguard tunnel, under a new key every 10 s: .* to 172\.30\.0\.4",
    "qkd vpn": r"finance to government +wireguard +up",
    "government ping -c 3 172.30.0.4": r"3 packets transmitted, 3 received",
    "qkd vpn government finance story": r"who learned it:",
    "qkd vpn government military --ipsec --every 2": r"ipsec tunnel, under a new key every 2 s",
    "qkd vpn government finance off": r"no tunnel joins government and finance any more",
}


def commands() -> list[str]:
    """Those of the page's first block, without remarks."""
    block = re.search(r"(?:^ {4}.+\n)+", PAGE.read_text(), re.MULTILINE)
    assert block
    return [line.partition("#")[0].strip() for line in block[0].splitlines()]


def test_page_works_as_printed(tmp_path: Path):
    """Word by word."""
    assert commands() == list(LEADS_TO)
    run = Running(tmp_path / "run", "--no-dashboard")
    try:
        run.wait_up()
        for command in commands():
            run.say(command, LEADS_TO[command])
        assert run.exit() == 0, run.text
    finally:
        run.stop()
