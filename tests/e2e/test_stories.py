"""Stories and captures at the command line of a running PoliQI."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import Any
from xml.etree import ElementTree

from telemetry import journal
from tests.e2e.test_poliqi import open_session, ping
from tests.support.processes import commands
from tests.support.running import ROOT, Running, kill
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


def test_capture_that_ends_holds_all_that_had_crossed_though_tcpdump_was_held_up(poliqi):
    """As on a busy machine: it sleeps while packets cross, and until it is told to end."""
    poliqi.say("qkd capture finance university", "capturing into .*finance-university.pcap")
    pcap = poliqi.directory / "captures" / "finance-university.pcap"
    [tcpdump] = [path for path, words in commands().items() if words[-1] == str(pcap)]
    os.kill(int(tcpdump.name), signal.SIGSTOP)
    answered, _ = ping(poliqi, "finance", "university", 50)
    poliqi.cli("qkd capture finance university off")
    until(lambda: re.search(r"ShdPnd:\s*0*[1-9a-f]", (tcpdump / "status").read_text()))  # told, and still asleep
    os.kill(int(tcpdump.name), signal.SIGCONT)
    poliqi.wait_for(r"captured: .*finance-university.pcap\n")

    shown = subprocess.run(["tcpdump", "-n", "-r", pcap, "icmp"], capture_output=True, text=True, check=True).stdout
    assert answered
    assert len(re.findall(r"ICMP echo (?:request|reply)", shown)) >= 2 * answered


def test_capture_begins_when_it_says_so_though_the_last_file_of_its_name_was_moved_away(poliqi):
    """Not when the tcpdump before it did."""
    pcap = poliqi.directory / "captures" / "telecom-finance.pcap"
    for number in (1, 2):
        poliqi.say("qkd capture telecom finance", f"capturing into {pcap}")
        assert (poliqi.directory / "logs" / "capture-telecom-finance.log").read_text().count("listening on") == number
        poliqi.say("qkd capture telecom finance off", f"captured: {pcap}\n")
        pcap.rename(poliqi.directory / f"taken-{number}.pcap")


def test_capture_whose_tcpdump_has_ended_says_that_its_file_may_lack_packets(poliqi):
    """As it does on a disk that is full; the link can be captured again."""
    pcap = poliqi.directory / "captures" / "university-government.pcap"
    poliqi.say("qkd capture university government", f"capturing into {pcap}")
    assert kill(str(pcap))
    poliqi.say("qkd capture university government off", f"{pcap} may lack packets: tcpdump did not say .* SIGKILL")

    poliqi.say("qkd capture university government", "capturing into .*university-government-2.pcap")
    poliqi.say("qkd capture university government off", "captured: .*university-government-2.pcap\n")
