"""Links of hundreds of milliseconds, from the beginning or all at once: keys flow, and what is too slow is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry.journal import read
from tests.e2e.test_fault_commands import broken
from tests.support.running import Running, finished
from tests.support.waiting import until

DELAY_MS = 300


def assert_clean(directory: Path) -> dict:
    """All pairs were identical, and the audit is clean; the summary."""
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["died"] == []
    assert summary["pairs"]["compared"] == summary["pairs"]["identical"] > 0
    assert summary["audit"]["verdict"] == "clean", summary["audit"]
    return summary


@pytest.mark.slow
def test_network_with_links_of_300_ms_hands_out_keys(tmp_path):
    """Over one hop and over two; every session that was asked for is admitted."""
    run = tmp_path / "run"

    done = finished(
        "--delay", DELAY_MS, "--duration", 30, "--sessions", 6, "--seed", 3, "--qc-rate", "300-400", "--no-cli",
        "--run-dir", run, timeout_s=300,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    summary = assert_clean(run)
    assert summary["sessions"] == {"requested": 6, "admitted": 6, "refused": 0, "failed": 0}
    assert summary["keys"]["single_hop"] > 0
    assert summary["keys"]["multi_hop"] > 0
    assert summary["delivery_ms"]["single_hop"]["p50"] > 0


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Running]:
    """PoliQI with short links, and key sessions that run all along."""
    running = Running(tmp_path / "run", "--sessions", 6, "--seed", 3, "--qc-rate", "900-1000", "--no-dashboard")
    try:
        running.wait_up()
        yield running
    finally:
        running.stop()


def rekeyed(run: Running, since: float) -> set[str]:
    """Key sessions of which both sides had a key since that moment of the wall clock."""
    events = [e for path in run.directory.glob("saes/*/journal.jsonl") for e in read(path, "key") if e["time"] > since]
    sides = [{e["ksid"] for e in events if e["side"] == side} for side in ("master", "slave")]
    return sides[0] & sides[1]


@pytest.mark.slow
def test_links_that_become_slow_while_the_network_runs_are_followed(network):
    """By those who have connections and by those who make new ones; beyond what is followed a change is refused."""
    assert until(lambda: len(rekeyed(network, 0)) == 6)
    sessions = rekeyed(network, 0)
    fibres = [qc["qc"].rpartition("/")[0] for qc in network.config("qcs")["qcs"]]
    for fibre in fibres:
        network.say(f"qkd fibre {fibre} delay {DELAY_MS}ms", rf"{fibre} +both ways +{DELAY_MS}")
    since = time.time()
    until(lambda: rekeyed(network, since) >= sessions, else_tell=lambda: sessions - rekeyed(network, since))

    with broken(network, "database"):
        pass
    with broken(network, "node finance"):
        pass
    since = time.time()
    until(lambda: rekeyed(network, since) >= sessions, else_tell=lambda: sessions - rekeyed(network, since))

    network.say(f"qkd fibre {fibres[0]} delay 350ms", "a network that runs follows up to 1.25 s")
    network.say("qkd set ttl_slots 8", "an eighth of a TTL of 8 slots")
    assert network.exit() == 0, network.text[-2000:]
    assert_clean(network.directory)
