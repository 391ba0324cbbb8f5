"""Every way to falsify the records of a tunnel's keys is found: one a case, in a clean run, by its words."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.played_run import played
from tests.unit.testbed.audit.test_falsified import Run, drop, event, findings


def keys(run: Run) -> list[str]:
    """The IDs of the tunnel's keys, in order."""
    return [e["key_id"] for e in run["gateways"]["a"] if e["event"] == "key"]


def say(run: Run, node: str, facts: dict[str, Any]) -> None:
    """A gateway tells of something more."""
    run["gateways"][node].append(facts)
    run["gateways"][node].sort(key=lambda e: e["mono"])


def forget(run: Run, key_id: str) -> None:
    """The network knows nothing of a key."""
    run["records"]["keys"] = [key for key in run["records"]["keys"] if key[0] != key_id]


def other_key_at_one_end(run: Run) -> None:
    event(run, "gateways", "b", "key")["fingerprint"] = "mark of another"


def key_of_an_application(run: Run) -> None:
    """A tunnel's key is one that an application got, under another ID."""
    mark = event(run, "saes", "a", "key")["fingerprint"]
    for node in "ab":
        event(run, "gateways", node, "key")["fingerprint"] = mark


def same_key_twice(run: Run) -> None:
    """Under two IDs, at both ends."""
    for node in "ab":
        first, second, _ = (e for e in run["gateways"][node] if e["event"] == "key")
        second["fingerprint"] = first["fingerprint"]


def key_not_from_the_network(run: Run) -> None:
    forget(run, keys(run)[0])


def key_that_no_node_gave(run: Run) -> None:
    drop(run, "nodes", "b", "key_delivered", key_ids=[keys(run)[0]])


def key_that_was_not_got(run: Run) -> None:
    drop(run, "gateways", "a", "key", key_id=keys(run)[0])


def key_got_after_it_was_used(run: Run) -> None:
    event(run, "gateways", "b", "key")["mono"] = 57.5


def key_that_the_other_end_lacks(run: Run) -> None:
    drop(run, "gateways", "b", "key", key_id=keys(run)[0])


def key_handed_out_and_not_told(run: Run) -> None:
    key_id = keys(run)[0]
    for node in "ab":
        for name in ("key", "tunnel_keyed"):
            drop(run, "gateways", node, name, key_id=key_id)
    event(run, "gateways", "a", "stopped")["mono"] = 80.0  # not so shortly after that this would excuse it


def key_of_another_size(run: Run) -> None:
    for node in "ab":
        event(run, "gateways", node, "key")["size_bits"] = 128


def key_got_twice(run: Run) -> None:
    run["gateways"]["b"].insert(2, dict(event(run, "gateways", "b", "key")))


def key_of_the_wrong_side(run: Run) -> None:
    event(run, "gateways", "a", "key")["side"] = "slave"


def key_used_twice(run: Run) -> None:
    """The first key again, after the second one."""
    for node, at in (("a", 62.0), ("b", 62.1)):
        say(run, node, event(run, "gateways", node, "tunnel_keyed") | {"mono": at})


def key_of_two_tunnels(run: Run) -> None:
    say(run, "a", event(run, "gateways", "a", "tunnel_keyed") | {"mono": 58.0, "peer": "c"})


def key_of_another_tunnel(run: Run) -> None:
    """Both ends agree on it, and it was made for two others."""
    for key in run["records"]["keys"]:
        if key[0] == keys(run)[0]:
            key[3] = "gw-c"


def leading_end_did_not_turn(run: Run) -> None:
    drop(run, "gateways", "a", "tunnel_keyed", key_id=keys(run)[0])


def following_end_turned_first(run: Run) -> None:
    event(run, "gateways", "b", "tunnel_keyed")["mono"] = 57.2


def following_end_turned_long_after(run: Run) -> None:
    for e in run["gateways"]["a"]:
        if e["event"] in {"started", "key", "tunnel_keyed"} and e["mono"] < 58:
            e["mono"] -= 25
    next(e for e in run["run"] if e["process"] == "vpn-a")["mono"] -= 25


def ends_of_other_terms(run: Run) -> None:
    event(run, "gateways", "b", "tunnel_keyed")["every_s"] = 4.0


def key_that_never_lapsed(run: Run) -> None:
    """The end goes by it until the tunnel ends, and that is late."""
    run["gateways"]["b"] = [e for e in run["gateways"]["b"] if e["mono"] < 58 or e["mono"] > 68.9]
    for e in run["gateways"]["b"][-2:]:
        e["mono"] = 90.0


def end_of_a_key_that_was_none(run: Run) -> None:
    event(run, "gateways", "b", "tunnel_closed")["key_id"] = keys(run)[0]


def tunnel_of_another_datacenter(run: Run) -> None:
    event(run, "gateways", "b", "tunnel_keyed")["node"] = "c"


def no_journal(run: Run) -> None:
    run["gateways"]["b"] = None


def journal_of_another_gateway(run: Run) -> None:
    run["gateways"]["b"] = run["gateways"]["a"]


def gateway_that_nobody_started(run: Run) -> None:
    run["run"] = [e for e in run["run"] if e["process"] != "vpn-b"]


def journal_without_an_end(run: Run) -> None:
    drop(run, "gateways", "b", "stopped")


FALSIFICATIONS = [
    (other_key_at_one_end, "the two ends of a tunnel got different keys"),
    (key_of_an_application, "are the same key"),
    (same_key_twice, "are the same key"),
    (key_not_from_the_network, "the gateway of a got it, and nothing was allocated for it"),
    (key_that_no_node_gave, "the gateway of b got it, and node b does not tell of it"),
    (key_that_was_not_got, "the gateway of a has a tunnel go by it that it did not get from its node"),
    (key_got_after_it_was_used, "the gateway of b has a tunnel go by it that it did not get from its node"),
    (key_that_the_other_end_lacks, "the gateway of a has a tunnel go by it that the gateway of b does not have"),
    (key_handed_out_and_not_told, "node a handed it out (enc_keys), and the gateway of a does not have it"),
    (key_of_another_size, "the gateway of a got 128 bits, and a tunnel takes 256"),
    (key_got_twice, "the gateway of b got it twice"),
    (key_of_the_wrong_side, "the gateway of a got it as its slave, whom it was not made for"),
    (key_used_twice, "the gateway of a has a tunnel go by it 2 times"),
    (key_of_two_tunnels, "two tunnels go by it, of a and b and of a and c"),
    (key_of_another_tunnel, "the gateway of b got it as its slave, whom it was not made for"),
    (leading_end_did_not_turn, "has a tunnel go by it, and the gateway of a, which leads, does not"),
    (following_end_turned_first, "has a tunnel go by it -0.1 s after the gateway of a, which leads"),
    (following_end_turned_long_after, "has a tunnel go by it 25.1 s after the gateway of a, which leads"),
    (ends_of_other_terms, "the gateway of b has a tunnel go by it on other terms than the gateway of a"),
    (key_that_never_lapsed, "the gateway of b has a tunnel go by it for 32.6 s, and may 6 s"),
    (end_of_a_key_that_was_none, "tells of its end (tunnel_closed), and not of its begin"),
    (tunnel_of_another_datacenter, "the gateway of b: it tells of a tunnel of another datacenter"),
    (no_journal, "the gateway of b: its journal is missing"),
    (journal_of_another_gateway, "the gateway of b: it is another SAE than it was meant to be"),
    (gateway_that_nobody_started, "the gateway of b: the run does not tell that it started"),
    (journal_without_an_end, "the gateway of b: the journal does not tell that it stopped"),
]


@pytest.mark.parametrize(
    ("falsify", "words"), FALSIFICATIONS, ids=[falsify.__name__ for falsify, _ in FALSIFICATIONS]
)
def test_falsification_of_a_tunnel_is_found(falsify, words):
    """Each alone, in records that are sound otherwise."""
    run = played()
    falsify(run)

    found = findings(run)

    assert any(words in finding for finding in found), found


def test_gateway_that_was_killed_may_not_tell_of_its_last_key():
    """It is followed by one that knows nothing of it; the other end goes by the key until it lapses."""
    run = played()
    key_id = keys(run)[2]
    run["gateways"]["a"] = [e for e in run["gateways"]["a"] if e["mono"] < 67.0]
    run["run"].append({"event": "killed", "process": "vpn-a", "mono": 67.4})

    assert findings(run) == []
    assert any(e["event"] == "tunnel_keyed" and e["key_id"] == key_id for e in run["gateways"]["b"])
