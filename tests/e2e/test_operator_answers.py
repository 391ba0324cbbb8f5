"""What a live PoliQI answers to its operator is as the schemas of the interface say, request by request."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from testbed.errors import UserError
from testbed.operation.client import Client
from testbed.operation.interface import REQUESTS, schemas
from tests.support.running import ROOT, Running

SCHEMAS = schemas()


class Validated:
    """Makes requests, and holds arguments, answers and events to their schemas; `asked` names those that were made."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.asked: set[str] = set()

    def do(self, name: str, /, **arguments: Any) -> Any:
        """The answer, which is as it must be."""
        self.asked.add(name)
        jsonschema_rs.validate(SCHEMAS[name]["arguments"], arguments)
        answer = self._client.do(name, **arguments)
        validate(name, answer)
        return answer

    def stream(self, name: str, /, **arguments: Any) -> Iterator[dict[str, Any]]:
        """The events, each of which is as it must be."""
        self.asked.add(name)
        jsonschema_rs.validate(SCHEMAS[name]["arguments"], arguments)
        for event in self._client.stream(name, **arguments):
            jsonschema_rs.validate(SCHEMAS[name]["event"], event)
            yield event


def validate(name: str, answer: Any) -> None:
    """That is what the schema of the request allows."""
    jsonschema_rs.validate(SCHEMAS[name]["answer"], answer, validate_formats=True)


@pytest.fixture(scope="module")
def operator(poliqi: Running) -> Iterator[Validated]:
    """An operator of the network who is strict."""
    with contextlib.closing(Client(poliqi.directory)) as client:
        yield Validated(client)


@pytest.fixture(scope="module")
def pair(operator: Validated) -> tuple[str, str]:
    """Names of two SAEs of neighbours that have no key session yet."""
    found = operator.do("saes")
    busy = {(session["master"], session["slave"]) for session in operator.do("sessions")}
    masters, slaves = ([s["name"] for s in found if s["node"] == node] for node in ("government", "military"))
    return next((m, s) for m in masters for s in slaves if (m, s) not in busy)


def test_what_there_is_is_told_as_described(operator, pair):
    """Names, what was built, and how it is; sessions and refusals are among it."""
    names = operator.do("names")
    operator.do("set", name="admission", value="reserve")
    with pytest.raises(UserError, match="not opened"):  # keys of that size need more than its QCs make
        operator.do("open", master=pair[0], slave=pair[1], key_size_bits=1 << 20, interval_s=0.5)
    operator.do("set", name="admission", value="none")

    assert operator.do("status")["controller"] is not None
    assert operator.do("controller")["nodes"].keys() == {*names["nodes"]}
    assert operator.do("processes") == {}
    assert operator.do("sessions")
    assert operator.do("refusals")
    assert len(operator.do("topology")["nodes"]) == len(names["nodes"])
    assert {qc["qc"] for qc in operator.do("qcs")} == {*names["qcs"]}
    assert operator.do("parameters").keys() == {*names["parameters"]}
    for name in names["nodes"]:
        assert operator.do("node", name=name)["qcs"]
        operator.do("describe", name=name)
    operator.do("summary")


def test_keys_are_answered_and_told_as_described(operator, pair):
    """From the opening of a key session to its end, with its stories and events."""
    between = dict(zip(("master", "slave"), pair, strict=True))
    opened = operator.do("open", **between, duration_s=600)
    assert operator.do("ksid", **between)["ksid"] == opened["ksid"]
    assert opened["ksid"] in {session["ksid"] for session in operator.do("sae", name=pair[0])["sessions"]}

    keys = operator.do("get_key", **between, number=2)["keys"]
    assert operator.do("get_key_with_ids", **between, key_ids=[key["key_ID"] for key in keys])["keys"] == keys
    assert operator.do("stories")
    operator.do("story", ident=operator.do("last_story", **between)["ident"])
    assert operator.do("story", ident=opened["ksid"])["text"]
    operator.do("close", ksid=opened["ksid"])
    assert {"session_opened", "key_delivered"} <= {event["event"] for event in operator.stream("events")}


def test_what_is_changed_is_answered_as_described(operator):
    """Parameters, QCs and fibres; all is as before afterwards."""
    qc = operator.do("qcs")[0]
    operator.do("set", name="keys_ahead", value=str(operator.do("parameters")["keys_ahead"]))
    assert operator.do("set_parameters", values={"ttl_slots": 16})["parameters"]["ttl_slots"] == 16
    operator.do("set_parameters", values={"ttl_slots": 15, "mode": operator.do("parameters")["mode"]})
    with pytest.raises(UserError, match="not set: ttl_slots: expected"):
        operator.do("set_parameters", values={"ttl_slots": "many"})
    operator.do("set_rate", qc=qc["qc"], **qc["rate"])
    operator.do("set_generation", qc=qc["qc"], enabled=True)
    fibre = operator.do("fibres")[0]["name"]
    operator.do("measure_fibre", fibre=fibre)
    changed = operator.do("change_fibre", fibre=fibre, shape={"delay_ms": 3, "bandwidth_mbit": None}, measure=False)
    assert changed["rtt"] is None
    assert operator.do("reset_fibre", fibre=fibre)["directions"] != changed["directions"]


def test_what_breaks_and_heals_is_answered_and_followed_as_described(operator, poliqi):
    """A follower hears of both."""
    with contextlib.closing(Client(poliqi.directory)) as another:
        following = Validated(another)
        events = following.stream("follow", names=["fault", "healed"])
        assert next(events)["event"] == "following"
        operator.do("break", kind="qc", where=["telecom", "finance"])
        try:
            assert [fault["kind"] for fault in operator.do("faults")] == ["qc"]
            assert operator.do("status")["broken"] == ["qc telecom finance"]
        finally:
            operator.do("heal")
        assert [next(events)["event"], next(events)["event"]] == ["fault", "healed"]
        operator.asked |= following.asked


def test_tunnels_and_captures_are_answered_as_described(operator):
    """By TLS, which works on every kernel."""
    ends = {"a": "government", "b": "military"}
    operator.do("capture", **ends)
    operator.do("open_tunnel", **ends, kind="tls", every_s=60)
    try:
        assert len(operator.do("tunnels")) == 2
    finally:
        operator.do("close_tunnel", **ends)
    operator.do("end_capture", **ends)


@pytest.mark.parametrize("word", ["status", "qcs", "sessions", "fibres", "saes", "refusals"])
def test_qkd_prints_the_same_answers_as_json(poliqi, word):
    """`qkd WORD --json`."""
    done = subprocess.run(
        [ROOT / "qkd", "--run", poliqi.directory, word, "--json"], capture_output=True, text=True, check=True
    )

    validate(word, json.loads(done.stdout))


def test_every_request_was_made(operator):
    """But for the one that ends the run, whose answer is null: a new request needs its live test here."""
    assert operator.asked == REQUESTS.keys() - {"stop"}
