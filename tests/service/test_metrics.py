"""What Prometheus reads of a node and of the controller, of real processes over mutual TLS."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
import urllib3
from prometheus_client.parser import text_string_to_metric_families

from mtls.call import Reply
from mtls.identity import Identity, Role
from telemetry import journal
from testbed.evidence.summary import summarise
from testbed.network.loopback import LOOPBACK, Stack
from tests.support.waiting import until

ALICE, BOB, CAROL = (str(uuid.uuid4()) for _ in range(3))
LINKS = [("a-b/1", "a", "b"), ("b-c/1", "b", "c")]


class Network(Stack):
    """Three nodes in a row; what their figures are now."""

    def figures(self, of: str) -> dict[tuple[str, ...], float]:
        """(Name, values of its labels in the order of their names) -> value, of a node's agent or of the controller.

        But for the label `node`, which is the same everywhere.
        """
        if of == "ctl":
            url, to = f"https://{LOOPBACK}:{self.controller_port}", Identity(Role.CONTROLLER, "ctl")
        else:
            url, to = self.agent(of), Identity(Role.NODE, of)
        context = self.issue(Role.OPERATOR, "prometheus").client_context()
        with urllib3.PoolManager(ssl_context=context, server_hostname=to.dns) as pool:
            answer = pool.request("GET", f"{url}/metrics")
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain")
        samples = [s for family in text_string_to_metric_families(answer.data.decode()) for s in family.samples]
        for sample in samples:
            assert sample.labels.pop("node", None) == (None if of == "ctl" else of)
        return {(s.name, *(value for _, value in sorted(s.labels.items()))): s.value for s in samples}

    def register(self, sae: str, node: str, body: dict) -> Reply:
        """One side of a key session."""
        to, url = Identity(Role.NODE, node), f"{self.kme(node)}/qkd/v1/key_sessions"
        return self.caller(Role.SAE, sae).request("POST", url, to=to, body=body, timeout_s=20)

    def ask(self, sae: str, node: str, peer: str, what: str, body: dict | None = None) -> dict:
        """A request for keys, which may fail."""
        url = f"{self.kme(node)}/api/v1/keys/{peer}/{what}"
        reply = self.caller(Role.SAE, sae).request("POST", url, to=Identity(Role.NODE, node), body=body or {})
        return {"status": reply.status, **reply.body}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Keys have gone over one hop and over two, one was fetched, one request failed."""
    stack = Network(tmp_path_factory.mktemp("metrics"))
    try:
        stack.start_postgres()
        stack.start_controller()
        stack.start_nodes(LINKS, {ALICE: "a", BOB: "b", CAROL: "c"}, slot_s=0.5)
        stack.start_qcs(LINKS, low=2000, high=2000, slot_s=0.5)
        until(lambda: stack.ask(ALICE, "a", CAROL, "enc_keys")["status"] == 200)
        given = stack.ask(ALICE, "a", BOB, "enc_keys", {"number": 3})["keys"]
        assert stack.ask(BOB, "b", ALICE, "dec_keys", {"key_IDs": [{"key_ID": given[0]["key_ID"]}]})["status"] == 200
        assert stack.ask(ALICE, "a", BOB, "enc_keys", {"number": 64, "size": 8192})["status"] == 503
        yield stack
    finally:
        stack.stop()


def test_keys_delivered_are_counted_by_request_mode_and_hops(network):
    """Keys, not requests; of those fetched by ID only the request is known."""
    master, slave = network.figures("a"), network.figures("b")

    assert master["qkd_keys_delivered_total", "1", "enc_keys", "basic"] == 3
    assert master["qkd_keys_delivered_total", "2", "enc_keys", "basic"] == 1
    assert slave["qkd_keys_delivered_total", "", "dec_keys", ""] == 1


def test_delivery_times_are_a_histogram_in_seconds(network):
    """One observation a request."""
    figures = network.figures("a")

    assert figures["qkd_key_delivery_seconds_count", "1", "enc_keys", "basic"] == 1
    assert 0 < figures["qkd_key_delivery_seconds_sum", "2", "enc_keys", "basic"] < 10
    assert figures["qkd_key_delivery_seconds_bucket", "1", "+Inf", "enc_keys", "basic"] == 1


def test_failures_are_counted_by_cause(network):
    """The names are those of the error bodies and the journal."""
    assert network.figures("a")["qkd_key_requests_failed_total", "short_of_material", "enc_keys"] >= 1


def test_stock_of_every_qc_is_shown(network):
    """In bytes; what came in and is gone adds up to what is there."""
    figures = network.figures("b")

    for qc in ("a-b/1", "b-c/1"):
        came, used, expired, there = (
            figures[f"qkd_qc_{what}", qc]
            for what in ("generated_bytes_total", "used_bytes_total", "expired_bytes_total", "stored_bytes")
        )
        assert came > 0
        assert there == came - used - expired


def test_error_rate_of_every_qc_is_shown(network):
    """In percent, at both of its ends."""
    for node in "ab":
        assert 0 < network.figures(node)["qkd_qc_qber_percent", "a-b/1"] < 11


def test_pool_is_shown_by_its_qc(network):
    """Keys made ahead, which wait: none at first, then of four made in QKP mode one was handed out."""
    caller = network.caller(Role.OPERATOR, "operator")
    url = f"https://{LOOPBACK}:{network.controller_port}/qkd/v1/parameters"
    to = Identity(Role.CONTROLLER, "ctl")
    caller.request("PATCH", url, to=to, body={"mode": "qkp"})
    try:
        assert network.figures("a")["qkd_pool_keys", "a-b/1"] == 0

        def pooled_after_a_key() -> float:
            network.ask(ALICE, "a", CAROL, "enc_keys")
            return network.figures("a")["qkd_pool_keys", "a-b/1"]

        until(lambda: pooled_after_a_key() == 3)
    finally:
        caller.request("PATCH", url, to=to, body={"mode": "basic"})


def test_controller_counts_admissions_and_sessions(network):
    """And the time that it took to open them."""
    figures = network.figures("ctl")

    assert figures["qkd_admissions_total", "", "admitted"] == 2
    assert figures["qkd_session_opening_seconds_count",] == 2
    assert figures["qkd_key_sessions", "open"] == 2
    assert figures["qkd_nodes",] == 3


def test_refused_admission_is_counted_by_its_cause(network):
    """The cause that the application is told: 20 kB are wanted each slot, a tenth of it is made."""
    caller = network.caller(Role.OPERATOR, "operator")
    url = f"https://{LOOPBACK}:{network.controller_port}/qkd/v1/parameters"
    to = Identity(Role.CONTROLLER, "ctl")
    caller.request("PATCH", url, to=to, body={"admission": "reserve"})
    try:
        assert network.register(CAROL, "c", {"peer": BOB, "side": "slave"}).status == 202
        wanted = {"key_size_bits": 8192, "interval_s": 0.05}
        refused = network.register(BOB, "b", {"peer": CAROL, "side": "master", "qos": wanted})
    finally:
        caller.request("PATCH", url, to=to, body={"admission": "none"})

    assert (refused.status, refused.detail("cause")) == (503, "refused")
    assert network.figures("ctl")["qkd_admissions_total", "refused", "refused"] == 1


def test_key_material_that_came_to_nothing_is_counted_by_qc(network):
    """What was allocated before a relay broke is lost; a request that is refused before loses nothing."""
    def lost() -> dict[str, float]:
        return {of[1]: n for of, n in network.figures("a").items() if of[0] == "qkd_qc_lost_bytes_total"}

    assert lost() == {}
    network.nodes["c"].kill()
    broken = network.ask(ALICE, "a", CAROL, "enc_keys", {"size": 128})
    network.start_node("c").wait_ready()

    assert {"cause": "relay_broken"} in broken["details"]
    assert lost() == {"a-b/1": 32, "b-c/1": 16}
    (event,) = journal.read(network.directory / "a" / "journal.jsonl", "lost")
    assert event["cause"] == "relay_broken"
    assert summarise([event])["keys"]["lost_bytes"] == lost()


def test_figures_name_no_sae_no_session_and_no_key(network):
    """They would be a series each, and whoever reads figures has no business with them."""
    seen = {label for of in ("a", "b", "ctl") for _, *labels in network.figures(of) for label in labels}

    assert not [label for label in seen if label.count("-") == 4]
