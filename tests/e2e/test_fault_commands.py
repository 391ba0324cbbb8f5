"""Faults from the command line, on one PoliQI: what the network does meanwhile, and that it heals by itself.

Whatever is broken, the run ends well: the last test reads its summary, which compares all keys and audits all records.
"""

from __future__ import annotations

import itertools
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from telemetry import journal
from tests.e2e.test_poliqi import get_key_with_id, open_session, ping, slow_way_round
from tests.support.running import Running
from tests.support.waiting import until


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """PoliQI with plenty of key material, for keys over five hops cost plenty, and key sessions that run all along."""
    options = ("--sessions", 6, "--seed", 11, "--qc-rate", "900-1000", "--no-dashboard")
    running = Running(tmp_path_factory.mktemp("e2e") / "faults", *options)
    try:
        running.wait_up()
        yield running
    finally:
        running.stop()


@contextmanager
def broken(run: Running, fault: str) -> Iterator[None]:
    """The fault, for as long as the block lasts; it heals by the same command with `heal` before it."""
    run.say(f"qkd fault {fault}", f"broken: {fault}\n")
    try:
        yield
    finally:
        run.say(f"qkd fault heal {fault}", f"healed: {fault}\n")


def controller(run: Running, what: str) -> Any:
    """What the operator sees there."""
    url = f"https://{run.config('controller')['host']}:{run.config('controller')['port']}/qkd/v1/{what}"
    return run.call("ctl", "GET", url, "operator:operator", "controller:ctl", "null")[0]["body"]


def path_of(run: Running, master: str, slave: str) -> list[str]:
    """The path of the session of a pair."""
    for session in controller(run, "key_sessions")["key_sessions"]:
        if (session["master_sae"], session["slave_sae"]) == (master, slave):
            return list(session["path"])
    return []


def over(run: Running, a: str, b: str) -> list[list[str]]:
    """Paths of sessions over the fibre between two datacenters."""
    paths = [s["path"] or [] for s in controller(run, "key_sessions")["key_sessions"]]
    return [p for p in paths if {a, b} in map(set, itertools.pairwise(p))]


def goes(run: Running, pair: tuple[str, str], *path: str) -> bool:
    """Whether the pair's session takes that path before long."""
    return bool(until(lambda: path_of(run, *pair) == list(path)))


def ask_key(run: Running, node: str, pair: tuple[str, str]) -> dict[str, Any]:
    """What the KME answers when the pair's master asks for a key."""
    url = f"{run.config(f'sae-{node}')['kme_url']}/api/v1/keys/{pair[1]}/enc_keys"
    return run.call(node, "POST", url, f"sae:{pair[0]}", f"node:{node}", json.dumps({"size": 128}))[0]


def exchanged(run: Running, nodes: tuple[str, str], pair: tuple[str, str]) -> bool:
    """Whether both sides get a key, and the same one."""
    given = ask_key(run, nodes[0], pair)
    if given["status"] != 200:
        return False
    (key,) = given["body"]["keys"]
    fetched = get_key_with_id(run, nodes[1], pair[1], pair[0], key["key_ID"])
    assert fetched["status"] != 200 or fetched["body"] == {"keys": [key]}
    return fetched["status"] == 200


def refused(run: Running, node: str, pair: tuple[str, str], text: str) -> bool:
    """Whether the master is answered 503 with that text before long."""
    def answer() -> bool:
        given = ask_key(run, node, pair)
        return given["status"] == 503 and text in given["body"]["message"]

    return bool(until(answer))


def outage_s(run: Running, source: str, target: str, fault: str) -> float:
    """The longest time without an answer to pings sent every 20 ms, while the fibre is cut."""
    address = run.config(f"node-{target}")["host"]
    command = run.on(source, "ping", "-D", "-n", "-i", "0.02", address)
    pings = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        run.say(f"qkd fault {fault}", "broken")
        assert until(lambda: ping(run, source, target, 3)[0] == 3)
    finally:
        pings.send_signal(signal.SIGINT)
        shown, _ = pings.communicate(timeout=20)
    times = [float(t) for t in re.findall(r"^\[([\d.]+)\] \d+ bytes from", shown, re.M)]
    return max(b - a for a, b in itertools.pairwise(times))


def test_cut_fibre_takes_traffic_and_sessions_the_other_way_round(network):
    """Both come back when it is joined; a key that the master had before is there for the slave after the move."""
    master, slave, hops = open_session(network, "government", "military")
    pair = master, slave
    assert hops == 1
    assert until(lambda: ask_key(network, "government", pair)["status"] == 200)
    (key,) = ask_key(network, "government", pair)["body"]["keys"]

    outage = outage_s(network, "government", "military", "cut military government")
    print(f"classical outage after the cut: {1000 * outage:.0f} ms")
    try:
        with slow_way_round(network) as slow_ms:
            assert ping(network, "government", "military")[1] > slow_ms, "four links in place of one"
        assert goes(network, pair, "government", "university", "finance", "telecom", "military")
        same = get_key_with_id(network, "military", slave, master, key["key_ID"])
        assert same["status"] == 400 or same["body"] == {"keys": [key]}
        assert until(lambda: exchanged(network, ("government", "military"), pair))
        assert until(lambda: not over(network, "government", "military"))
    finally:
        network.say("qkd fault heal cut government military", "healed: cut government military")

    with slow_way_round(network) as slow_ms:
        assert until(lambda: ping(network, "government", "military")[1] < slow_ms)
    assert goes(network, pair, "government", "military")
    assert until(lambda: exchanged(network, ("government", "military"), pair))


def test_dead_node_is_avoided_and_sessions_that_end_there_say_so(network):
    """Those over it go around it; those to it get a 503 that names it, and go on when it is back."""
    through = open_session(network, "university", "telecom")[:2]
    to = open_session(network, "university", "finance")[:2]
    assert path_of(network, *through) == ["university", "finance", "telecom"]

    with broken(network, "node finance"):
        assert goes(network, through, "university", "government", "military", "telecom")
        assert until(lambda: exchanged(network, ("university", "telecom"), through))
        assert refused(network, "university", to, "down at node finance; there is no other way")
    assert until(lambda: exchanged(network, ("university", "finance"), to))


@pytest.mark.slow
def test_failed_qc_moves_sessions_and_leaves_the_traffic(network):
    """In mode qkp: keys that wait in pools stay good on both sides, before and after the move."""
    network.say("qkd set mode qkp", "mode is qkp now")
    try:
        pair = open_session(network, "telecom", "finance")[:2]
        nodes = "telecom", "finance"
        assert until(lambda: exchanged(network, nodes, pair))
        with broken(network, "qc telecom finance"):
            assert goes(network, pair, "telecom", "military", "government", "university", "finance")
            assert until(lambda: exchanged(network, nodes, pair))
            assert ping(network, *nodes, 1)[0] == 1
            network.say("qkd fault", r"qc telecom finance +\d\d:\d\d:\d\d")
        assert until(lambda: exchanged(network, nodes, pair))
    finally:
        network.say("qkd set mode basic", "mode is basic now")


def epochs(run: Running, qc: str) -> list[int]:
    """The starts of that QC's device so far, by the numbers that it draws at each."""
    blocks = journal.events(run.directory / "qcs" / "journal.jsonl", "block")
    return list(dict.fromkeys(block["epoch"] for block in blocks if block["qc"] == qc))


@pytest.mark.slow
def test_devices_without_power_are_missed_and_begin_a_new_epoch(network):
    """Their silence moves sessions as a word of theirs would; what they make after their start is used by both ends."""
    pair = open_session(network, "telecom", "finance")[:2]
    nodes = "telecom", "finance"
    assert until(lambda: exchanged(network, nodes, pair))
    before = epochs(network, "telecom-finance/1")

    with broken(network, "device telecom finance"):
        assert goes(network, pair, "telecom", "military", "government", "university", "finance")
        assert until(lambda: exchanged(network, nodes, pair))
        assert ping(network, *nodes, 1)[0] == 1
        network.say("qkd fault", r"device telecom finance +\d\d:\d\d:\d\d")

    assert goes(network, pair, "telecom", "finance")
    assert until(lambda: exchanged(network, nodes, pair))
    after = epochs(network, "telecom-finance/1")
    assert (after[: len(before)], len(after)) == (before, len(before) + 1)


def test_dead_controller_stops_no_session_that_is_open(network):
    """New ones wait for it with a clear error; it goes on with what was open."""
    pair = open_session(network, "military", "telecom")[:2]
    both = itertools.product(range(3), range(3))
    ids = [(network.sae("military", i)["id"], network.sae("university", j)["id"]) for i, j in both]
    strangers = next(pair for pair in ids if not path_of(network, *pair))
    with broken(network, "controller"):
        assert exchanged(network, ("military", "telecom"), pair)
        assert refused(network, "military", strangers, "no controller listens to this node")
        network.say("qkd sessions", "no answer")
        shown = (r"controller +does not answer[^\n]*", "broken +controller", "processes +controller killed")
        network.say("qkd status", r"\n".join(shown))
        assert ping(network, "military", "university", 1)[0] == 1
    assert until(lambda: exchanged(network, ("military", "university"), strangers))
    assert path_of(network, *pair) == ["military", "telecom"]


def test_dead_database_gives_errors_and_keeps_its_word(network):
    """No key without it; what was allocated stays so, and all nodes find it again."""
    pair = open_session(network, "finance", "telecom")[:2]
    nodes = "finance", "telecom"
    assert until(lambda: exchanged(network, nodes, pair))
    with broken(network, "database"):
        assert refused(network, "finance", pair, "database")
    assert until(lambda: exchanged(network, nodes, pair))


@pytest.mark.slow
def test_standby_takes_over_what_was_committed(network):
    """No key while it takes no writes; promoted, it serves all nodes at the old address."""
    pair = open_session(network, "government", "university")[:2]
    nodes = "government", "university"
    assert until(lambda: exchanged(network, nodes, pair))
    with broken(network, "standby"):
        given = ask_key(network, "government", pair)
        assert given["status"] == 503
        assert {"cause": "database_unreachable"} in given["body"]["details"]
    assert until(lambda: exchanged(network, nodes, pair))


@pytest.mark.slow
def test_paused_node_is_silent_and_goes_on_where_it_was(network):
    """Its own clients wait; once it wakes, all of them have keys."""
    pair = open_session(network, "finance", "university")[:2]
    nodes = "finance", "university"
    assert until(lambda: exchanged(network, nodes, pair))
    with broken(network, "pause university"):
        assert refused(network, "finance", pair, "university")
    assert until(lambda: exchanged(network, nodes, pair))


def test_impossible_faults_are_one_line(network):
    """And nothing breaks."""
    network.say("qkd fault cut government telecom", "no fibre between government and telecom: there are government-")
    network.say("qkd fault node milan", "no datacenter 'milan': expected one of")
    network.say("qkd fault heal database", "database is not broken: 'qkd fault' lists what is")
    network.say("qkd fault", "nothing is broken\nqkd fault ")


def test_run_that_ends_broken_ends_well(network):
    """Exit status 0, no process that died on its own, every pair the same, and a clean audit of all that was done."""
    for fault in ("cut university government", "qc military telecom", "node military", "database", "controller"):
        network.say(f"qkd fault {fault}", "broken: ")

    assert network.exit() == 0, network.text[-2000:]

    summary = json.loads((network.directory / "summary.json").read_text())
    assert summary["died"] == []
    assert summary["audit"]["verdict"] == "clean", summary["audit"]
    assert summary["audit"]["checked"]["allocations"] > 20
    assert summary["pairs"]["compared"] == summary["pairs"]["identical"] > 0
