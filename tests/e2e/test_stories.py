"""Stories and captures at the command line of a running PoliQI."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any
from xml.etree import ElementTree

from telemetry import journal
from tests.e2e.test_poliqi import open_session
from tests.support.running import ROOT, Running
from tests.support.waiting import until


def events(run: Running, name: str) -> list[dict[str, Any]]:
    """All events of that name so far, in any journal."""
    return [e for p in run.directory.rglob("journal.jsonl") for e in journal.read(p) if e["event"] == name]


def test_story_of_a_relayed_key_is_told_and_drawn(poliqi):
    """`qkd story` names keys, `qkd story ID` tells of one; the picture is the one that testbed.story makes."""
    def told_to_the_end() -> list[str]:
        over = {e["key_id"] for e in events(poliqi, "message") if e["side"] == "master"}
        relayed = [e for e in events(poliqi, "key_delivered") if e.get("hops") == 2 and e["mode"] == "basic"]
        return [e["key_ids"][0] for e in relayed if e["key_ids"][0] in over]

    key_id = until(told_to_the_end)[-1]

    poliqi.cli("qkd story")
    poliqi.wait_for(r"\d\d:\d\d:\d\d  [0-9a-f-]{36}  key, basic, 2 hops")
    poliqi.cli(f"qkd story {key_id}")
    told = poliqi.wait_for(rf"as a picture: .*{key_id}.svg")

    assert re.search(rf"Key {key_id}: BASIC, 2 hops\n", told)
    assert "relay: where the shared key lies" in told
    assert "who learned it:" in told
    drawn = (poliqi.directory / "stories" / f"{key_id}.svg").read_text()
    command = [sys.executable, "-P", "-m", "testbed.story", str(poliqi.directory), key_id]
    assert subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout == drawn
    assert ElementTree.fromstring(drawn).tag.endswith("svg")  # noqa: S314 - our own


def test_capture_of_a_link_holds_tls_and_stands_beside_the_story(poliqi):
    """From on to off; the story of a key made meanwhile names the file."""
    poliqi.cli("qkd capture government military")
    poliqi.wait_for(r"capturing into .*government-military.pcap, which holds TLS")
    poliqi.cli("qkd capture military government")
    poliqi.wait_for("link government-military is being captured")
    master, slave, _ = open_session(poliqi, "government", "military")
    opened = [e for e in events(poliqi, "session_open") if (e["master_sae"], e["slave_sae"]) == (master, slave)]
    pcap = poliqi.directory / "captures" / "government-military.pcap"
    assert until(lambda: b"\x17\x03\x03" in pcap.read_bytes())
    poliqi.cli("qkd capture government military off")
    poliqi.wait_for("captured: .*government-military.pcap")

    poliqi.cli(f"qkd story {opened[-1]['ksid']}")
    poliqi.wait_for("captured: captures/government-military.pcap")
    poliqi.cli("qkd capture government nobody")
    poliqi.wait_for("no link joins 'government' and 'nobody': there are .*government-military")
    poliqi.cli("qkd capture government military off")
    poliqi.wait_for("link government-military is not being captured")
    poliqi.cli("qkd story 00000000-0000-4000-8000-000000000000")
    poliqi.wait_for("no journal knows a key, a key session or a trace")
    assert json.loads((poliqi.directory / "captures" / "journal.jsonl").read_text().splitlines()[0])["link"]
