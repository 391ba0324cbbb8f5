"""What an application makes of another party's error answer, which it trusts in nothing."""

import pytest

from mtls.call import Reply
from sae.client import failure


def error(status=503, *, message="no", **facts) -> Reply:
    """An error answer in the standard's form."""
    return Reply(status, {"message": message, "details": [{k: v} for k, v in facts.items()]})


def test_cause_and_facts_of_the_node_are_kept():
    """Which QC was short comes through to counters, journal and operator."""
    found = failure(error(cause="short_of_material", qc="a-b", needed_bytes=16))

    assert (found.status, found.cause, str(found)) == (503, "short_of_material", "no")
    assert found.facts == {"qc": "a-b", "needed_bytes": 16}


@pytest.mark.parametrize(
    ("reply", "otherwise", "cause"),
    [
        (error(500), None, "http_500"),
        (error(500), "slave_refused", "slave_refused"),
        (error(404, cause=""), None, "http_404"),
        (error(404, cause=["x"]), None, "http_404"),
        (error(404, cause="c" * 1000), None, "http_404"),
        (Reply(418, None), None, "http_418"),
        (Reply(418, {"details": 3}), None, "http_418"),
    ],
)
def test_answer_without_a_cause_gets_one(reply, otherwise, cause):
    """The caller's word for it, else the status."""
    assert failure(reply, otherwise=otherwise).cause == cause


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
