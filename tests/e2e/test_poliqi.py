"""PoliQI on Mininet, as run.py brings it up: keys, classical traffic, what can be seen on the fibres."""

from __future__ import annotations

import base64
import itertools
import json
import re
import signal
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from telemetry import journal
from tests.e2e.conftest import SEED
from tests.support.leaks import made_by_seed, shown
from tests.support.running import Running
from tests.support.waiting import until

NODES = ("government", "military", "telecom", "finance", "university")


def open_session(run: Running, master_node: str, slave_node: str) -> tuple[str, str, int]:
    """Have two applications open a key session; their IDs and the number of hops."""
    for i, j in itertools.product(range(3), range(3)):
        master, slave = run.sae(master_node, i), run.sae(slave_node, j)
        url = f"https://{run.config(f'sae-{master_node}')['host']}:{master['port']}/sae/v1/sessions"
        body = json.dumps({"peer": slave["id"]})
        answer = run.call("ctl", "POST", url, "operator:operator", f"sae:{master['id']}", body)[0]
        if answer["status"] == 201:
            return master["id"], slave["id"], len(answer["body"]["path"]) - 1
        assert answer["status"] == 409, answer  # this pair has one already
    raise AssertionError("no pair is free")


def get_key(run: Running, node: str, master: str, slave: str, size: int = 256) -> dict[str, str]:
    """A key for the master, from its KME."""
    url = f"{run.config(f'sae-{node}')['kme_url']}/api/v1/keys/{slave}/enc_keys"
    answer = run.call(node, "POST", url, f"sae:{master}", f"node:{node}", json.dumps({"size": size}))[0]
    assert answer["status"] == 200, answer
    return answer["body"]["keys"][0]


def get_key_with_id(run: Running, node: str, slave: str, master: str, key_id: str) -> dict[str, object]:
    """The same key for the slave, from its own KME."""
    url = f"{run.config(f'sae-{node}')['kme_url']}/api/v1/keys/{master}/dec_keys"
    body = json.dumps({"key_IDs": [{"key_ID": key_id}]})
    return run.call(node, "POST", url, f"sae:{slave}", f"node:{node}", body)[0]


def ping(run: Running, source: str, target: str, count: int = 3) -> tuple[int, float]:
    """How many of `count` pings came back, and the shortest round-trip time in ms."""
    address = run.config(f"node-{target}")["host"]
    argv = run.on(source, "ping", "-c", str(count), "-i", "0.1", "-W", "2", address)
    shown = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    received = int(re.search(r"(\d+) received", shown)[1])
    return received, float(re.search(r"= ([\d.]+)/", shown)[1]) if received else float("inf")


@contextmanager
def slow_way_round(run: Running) -> Iterator[float]:
    """On their long way round government and military are so many ms apart, there and back: slower than any machine."""
    run.say("qkd fibre finance-university delay 40ms", r"finance-university +both ways +40\.000")
    try:
        yield 80.0
    finally:
        run.say("qkd fibre finance-university reset", r"finance-university +both ways +0\.")


@contextmanager
def cut_by_mininet(run: Running) -> Iterator[None]:
    """`link s1 s2 down`, as long as the block lasts: neighbours reach each other the long way round, then as before."""
    ends = run, "government", "military"
    with slow_way_round(run) as slow_ms:
        received, direct_ms = ping(*ends)
        assert received == 3
        assert direct_ms < slow_ms

        run.cli("link s1 s2 down")
        try:
            assert until(lambda: slow_ms < ping(*ends, 1)[1] < float("inf"))
            assert ping(*ends)[1] > slow_ms, "four links in place of one"
            yield
        finally:
            run.cli("link s1 s2 up")

        assert until(lambda: ping(*ends)[1] < slow_ms)


@pytest.mark.parametrize(("slave_node", "hops"), [("military", 1), ("telecom", 2)])
def test_both_applications_get_the_same_key(poliqi, slave_node, hops):
    """Byte for byte, over one hop and over a trusted relay, of the size asked for."""
    master, slave, found = open_session(poliqi, "government", slave_node)

    key = get_key(poliqi, "government", master, slave)
    same = get_key_with_id(poliqi, slave_node, slave, master, key["key_ID"])

    assert found == hops
    assert len(base64.b64decode(key["key"])) == 32
    assert same == {"status": 200, "body": {"keys": [key]}}


def test_every_datacenter_reaches_every_other(poliqi):
    """Classical traffic over the looped ring."""
    missing = [
        (a, b) for a, b in itertools.combinations((*NODES, "ctl", "db"), 2)
        if b in NODES and ping(poliqi, a, b, 1)[0] != 1
    ]  # fmt: skip

    assert not missing


def test_links_have_the_delay_that_was_configured(poliqi):
    """The table printed after start-up: never early, and late by less than the work of a busy machine."""
    rows = re.findall(r"^([a-z]+-[a-z]+) +([\d.]+) +([\d.]+)$", poliqi.text, re.M)

    assert len(rows) == 5
    for name, configured, measured in rows:
        assert float(configured) * 0.9 - 0.05 <= float(measured) <= float(configured) * 1.25 + 10, name


def test_no_key_and_no_qc_byte_crosses_a_fibre_in_the_clear(poliqi, tmp_path):
    """Captured on both ends of all links: neither keys nor what the QCs made, raw, in hex, or in base64."""
    pcap = tmp_path / "fibres.pcap"
    capture = subprocess.Popen(
        poliqi.fabric("tcpdump", "-i", "any", "-U", "-s", "0", "-w", str(pcap)),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert "listening" in next(line for line in capture.stderr if "listening" in line)
        marker = uuid.uuid4().hex
        subprocess.run(poliqi.on("government", "ping", "-c", "2", "-p", marker, poliqi.config("node-telecom")["host"]),
                       capture_output=True, check=True)  # fmt: skip
        keys, before = [], rekeyed(poliqi)
        for node in ("university", "telecom", "finance"):
            master, slave, _ = open_session(poliqi, "government", node)
            for _ in range(3):
                key = get_key(poliqi, "government", master, slave)
                assert get_key_with_id(poliqi, node, slave, master, key["key_ID"])["status"] == 200
                keys.append(base64.b64decode(key["key"]))
        until(lambda: rekeyed(poliqi) > before)  # what the applications do by themselves is in the capture, too
    finally:
        capture.send_signal(signal.SIGINT)
        capture.communicate(timeout=10)
    seen = pcap.read_bytes()

    assert bytes.fromhex(marker) in seen, "the capture sees what crosses in the clear"
    assert seen.count(b"\x17\x03\x03") > 100, "the capture holds TLS records"
    assert shown(seen, [bytes.fromhex(marker)]), "the search finds what is there"
    assert shown(seen, [*keys, *qc_output(poliqi)]) == []


def rekeyed(run: Running) -> int:
    """How many keys applications of the run's own have so far."""
    return sum(len(journal.read(path, "key")) for path in run.directory.glob("saes/*/journal.jsonl"))


def qc_output(run: Running, *, without: Sequence[str] = ()) -> list[bytes]:
    """All blocks that the QCs made so far; but for some, whose rate was changed."""
    rates = {qc["qc"]: (qc["low"], qc["high"]) for qc in run.config("qcs")["qcs"] if qc["qc"] not in without}
    found = made_by_seed(run.directory / "qcs" / "journal.jsonl", SEED, rates)
    assert len(found) > 20
    return found


def test_applications_exchange_identical_keys_on_their_own(poliqi):
    """What the run's own SAEs did meanwhile: fingerprints of both sides agree, over one hop and over several."""
    def pairs() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for path in (poliqi.directory / "saes").rglob("journal.jsonl"):
            for event in journal.read(path):
                if event["event"] == "key":
                    found.setdefault(event["key_id"], set()).add(f"{event['side']} {event['fingerprint']}")
        return {k: v for k, v in found.items() if len(v) > 1}

    found = until(lambda: len(p := pairs()) >= 10 and p)

    assert found
    assert all(len({text.split()[1] for text in sides}) == 1 for sides in found.values())


def test_cut_link_sends_classical_traffic_the_other_way_round(poliqi):
    """Mininet's `link s1 s2 down`: government and military, neighbours before, still reach each other; `up` heals."""
    with cut_by_mininet(poliqi):
        pass


def test_cli_knows_qkd_commands(poliqi):
    """status, links, sessions and open, each with what a person wants to know."""
    poliqi.cli("qkd status")
    poliqi.wait_for(r"nodes +5 of 5 reachable")
    poliqi.cli("qkd qcs")
    poliqi.wait_for(r"government-military/1 +government - military +ACTIVE")
    poliqi.cli("qkd open library mobile-core")
    poliqi.wait_for(r"open: KSID [0-9a-f-]{36}, path university - finance - telecom")
    poliqi.cli("qkd sessions")
    text = poliqi.wait_for(r"library +mobile-core +open +basic +explicitly +university - finance - telecom")
    ksid = re.search(r"^([0-9a-f-]{36}) +library +mobile-core", text, re.M)[1]
    poliqi.cli(f"qkd close {ksid}")
    poliqi.wait_for(r"\bclosed\n")
    poliqi.cli(f"qkd close {ksid}")
    poliqi.wait_for(f"no key session '{ksid}'")
    poliqi.cli("qkd open library nobody")
    poliqi.wait_for("no application 'nobody'")
    poliqi.cli("qkd set mode magic")
    poliqi.wait_for("not set: mode: expected one of basic, qkp, otp, parallel")
    poliqi.cli("qkd set keys_ahead 3")
    poliqi.wait_for("keys_ahead is 3 now")
    poliqi.cli("qkd set")
    poliqi.wait_for(r"keys_ahead +3\n")
    poliqi.cli("qkd refusals")
    poliqi.wait_for("no refusals|why")
    poliqi.cli("qkd set generation finance-university/1 off")
    poliqi.wait_for("finance-university/1 does not generate any more")
    poliqi.cli("qkd links")
    poliqi.wait_for(r"finance-university/1 .* disabled")
    poliqi.cli("qkd set generation all on")
    poliqi.wait_for("finance-university/1 generates\n")
    poliqi.cli("qkd nonsense")
    poliqi.wait_for("no word 'nonsense': 'qkd' lists what there is")
    poliqi.cli("qkd")
    poliqi.wait_for("qkd sessions +key sessions with their path")


def test_mode_changes_while_sessions_run(poliqi):
    """From BASIC to QKP to OTP: the sessions that run get keys in each, and nobody notices but the journals."""
    def modes() -> list[str]:
        events = [e for p in (poliqi.directory / "nodes").rglob("journal.jsonl") for e in journal.read(p)]
        return [e["mode"] for e in sorted(events, key=lambda e: e["time"]) if e.get("method") == "enc_keys"]

    try:
        for mode in ("qkp", "otp", "parallel"):
            poliqi.cli(f"qkd set mode {mode}")
            assert until(lambda mode=mode: mode in modes()[-3:])
    finally:
        poliqi.cli("qkd set mode basic")
    assert until(lambda: modes()[-1] == "basic")
    master, slave, _ = open_session(poliqi, "military", "finance")
    key = get_key(poliqi, "military", master, slave)
    assert get_key_with_id(poliqi, "finance", slave, master, key["key_ID"])["body"] == {"keys": [key]}


def test_rate_of_a_qc_changes_while_it_runs(poliqi):
    """By way of controller and agents, as the QKD device would be set; at both ends alike."""
    poliqi.cli("qkd set rate telecom-finance/1 900-901")

    def lengths() -> list[int]:
        events = journal.read(poliqi.directory / "qcs" / "journal.jsonl")
        return [e["n_bytes"] for e in events if e["event"] == "block" and e["qc"] == "telecom-finance/1"]

    assert until(lambda: lengths()[-1] in (900, 901))


def test_nothing_secret_is_readable_by_others(poliqi):
    """Of all files of a run that others may read none holds a key; private ones lie in private folders."""
    readable = [
        p for p in poliqi.directory.rglob("*")
        if p.is_file() and p.stat().st_mode & 0o004
        and not any(up.stat().st_mode & 0o005 != 0o005 for up in p.parents if poliqi.directory in (up, *up.parents))
    ]  # fmt: skip

    assert {p.name for p in readable} <= {"run.json", "init.pid", "summary.json"}
