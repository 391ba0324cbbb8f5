"""What an application makes of another party's error answer, which it trusts in nothing."""

from types import SimpleNamespace

import pytest

from mtls.call import Reply
from sae.client import Failed, failure
from sae.config import Peer
from sae.handover import Forgotten, Handover


def error(status=503, *, message="no", **facts) -> Reply:
    """An error answer in the standard's form."""
    return Reply(status, {"message": message, "details": [{k: v} for k, v in facts.items()]})


@pytest.mark.parametrize(
    ("reply", "what"), [(error(404, cause="no_session"), Forgotten), (error(503, cause="no_session"), Failed)]
)
def test_slave_that_has_no_session_is_told_from_one_whose_node_has_none(reply, what):
    """Its node may have one again at the next try."""
    caller = SimpleNamespace(round_trip_s=0.0, request=lambda *_, **__: reply)

    with pytest.raises(Failed) as raised:
        Handover(caller, {"bob": Peer("telecom/B", "https://b")}).ask_key("bob", "a KSID", "an ID")
    assert type(raised.value) is what


def test_cause_and_facts_of_the_node_are_kept():
    """Which QC was short comes through to counters, journal and operator."""
    found = failure(error(cause="short_of_material", qc="a-b", needed_bytes=16))

    assert (found.status, found.cause, str(found)) == (503, "short_of_material", "no")
    assert found.facts == {"qc": "a-b", "needed_bytes": 16}


@pytest.mark.parametrize(
    ("reply", "cause", "message"),
    [
        (error(500, message="disk on fire"), "internal_error", "disk on fire"),
        (Reply(500, None), "internal_error", "the KME met a bug, and says no more"),
        (Reply(500, {"message": " "}), "internal_error", "the KME met a bug, and says no more"),
        (error(404, message="no such key"), "kme_refused", "no such key"),
        (error(404, cause=""), "kme_refused", "no"),
        (error(404, cause=["x"]), "kme_refused", "no"),
        (error(404, cause="c" * 1000), "kme_refused", "no"),
        (Reply(418, None), "kme_refused", "the KME answered with HTTP status 418, and gives no reason"),
        (Reply(418, {"details": 3}), "kme_refused", "the KME answered with HTTP status 418, and gives no reason"),
    ],
)
def test_answer_without_a_cause_gets_one_and_says_what_is_known(reply, cause, message):
    """The caller's word for it, or that it is a bug; its text, or who answered how. A status says nothing to people."""
    found = failure(reply)

    assert (found.cause, str(found)) == (cause, message)


def test_answer_of_a_slave_without_a_cause_names_the_slave():
    """Who has to be looked at."""
    refused, bug = (failure(Reply(n, None), of="slave") for n in (404, 500))

    assert (refused.cause, str(refused)) == (
        "slave_refused", "the slave SAE answered with HTTP status 404, and gives no reason",
    )  # fmt: skip
    assert (bug.cause, str(bug)) == ("internal_error", "the slave SAE met a bug, and says no more")


@pytest.mark.parametrize("name", ["event", "who", "time", "mono", "name", "self", "status", "message"])
def test_facts_cannot_stand_in_for_our_own(name):
    """A peer cannot forge who wrote a journal line, or what it is about."""
    assert failure(Reply(503, {"details": [{"cause": "x"}, {name: "forged"}]})).facts == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", "a\nb", "x" * 1000, None, [1], {"a": 1}])
def test_facts_that_a_journal_would_not_take_are_left_out(value):
    """NaN, lone surrogates, line ends, endless texts, nested values."""
    assert failure(error(fact=value)).facts == {}


@pytest.mark.parametrize("status", [100, 302, 304, 600])
def test_answer_that_is_neither_yes_nor_no_is_a_bad_gateway(status):
    """A redirect is not followed and not passed on."""
    assert failure(Reply(status, None)).status == 502


def test_long_message_is_cut():
    """What another party says does not fill our journal."""
    assert len(str(failure(error(message="x" * 100_000)))) == 500
