"""Errors: clauses 5.2 to 5.4, and 6.5. Some of these look at what all the checks before them were answered."""

from __future__ import annotations

from conformance.checks import Chapter, Failed, Level, expect
from conformance.client import Answer
from conformance.pair import Pair, not_given, refused

CHAPTER = Chapter("Errors")
_claims = CHAPTER.claims
_LISTED = (400, 401, 503)


@_claims("5.2 to 5.4", Level.ADVISED)
def statuses_are_the_listed_ones(pair: Pair) -> None:
    """The three methods refuse by 400, 401 and 503 alone."""
    others = sorted({f"{name}: {answer.status}" for name, answer in _refusals(pair) if answer.status not in _LISTED})
    expect(not others, ", ".join(others))


@_claims("5.2 to 5.4, 6.5", Level.REQUIRED)
def errors_have_a_message(pair: Pair) -> None:
    """Every 400 and 503 has an Error body: a JSON object whose message is a string."""
    for name, answer in _refusals(pair, 400, 503):
        _has_message(name, answer)


@_claims("6.5", Level.REQUIRED)
def details_are_objects(pair: Pair) -> None:
    """details of an Error is an array of objects, if it is there."""
    for name, answer in _refusals(pair, 400, 503):
        details = answer.document.get("details", [])
        expect(isinstance(details, list), f"{name}, {answer.said}: details is no array")
        expect(all(isinstance(entry, dict) for entry in details), f"{name}, {answer.said}: no objects in details")


@_claims("5.1, 6.5", Level.REQUIRED)
def errors_are_application_json(pair: Pair) -> None:
    """Every 400 and 503 is of content type application/json."""
    for name, answer in _refusals(pair, 400, 503):
        found = answer.headers.get_content_type()
        expect(found == "application/json", f"{name}, {answer.said}: {found}")


@_claims("6.5", Level.ADVISED)
def errors_have_no_members_of_their_own(pair: Pair) -> None:
    """An Error has no members but message and details."""
    own = {member for _, answer in _refusals(pair, 400, 503) for member in answer.document} - {"message", "details"}
    expect(not own, ", ".join(sorted(own)))


@_claims("5.2 to 5.4", Level.ADVISED)
def unauthorized_has_a_message_too(pair: Pair) -> None:
    """A 401 has an Error body, too: one client in use fails at an empty one."""
    for name, answer in _refusals(pair, 401):
        _has_message(name, answer)


@_claims("5.2 to 5.4 (RFC 9110, 15.5.2)", Level.ADVISED)
def unauthorized_says_how(pair: Pair) -> None:
    """A 401 has a WWW-Authenticate header field."""
    lacking = {name for name, answer in _refusals(pair, 401) if not answer.headers["WWW-Authenticate"]}
    expect(not lacking, f"{', '.join(sorted(lacking))}: there is none")


@_claims("5.1 (RFC 9110, 15.5.5)", Level.ADVISED)
def unknown_path(pair: Pair) -> None:
    """A path that is none of the three methods' is a 404."""
    for path in ("/api/v1/keys", f"/api/v1/keys/{pair.b.id}/keys", f"/api/v2/keys/{pair.b.id}/status"):
        refused(pair.a.call("GET", path), 404, what=path)


@_claims("5.1 (RFC 9110, 15.5.6)", Level.ADVISED)
def wrong_method(pair: Pair) -> None:
    """PUT and DELETE of keys are a 405 with an Allow header that has GET and POST."""
    for method in ("PUT", "DELETE"):
        answer = pair.a.call(method, f"/api/v1/keys/{pair.b.id}/enc_keys")
        not_given(answer)
        refused(answer, 405)
        allowed = answer.headers.get("Allow", "")
        expect("GET" in allowed and "POST" in allowed, f"Allow: {allowed}")


@_claims("5.1", Level.REQUIRED)
def kmes_are_still_there(pair: Pair) -> None:
    """After all of this both KMEs give keys as before."""
    for master in pair.both:
        pair.fetched(pair.get(master=master))


def _refusals(pair: Pair, *statuses: int) -> list[tuple[str, Answer]]:
    """What the KMEs answered by these statuses, or without them by any but 200; with the method."""
    saes = [*pair.both, *([pair.other] if pair.other else [])]
    found = [refusal for sae in saes for refusal in sae.refusals]
    return [(name, answer) for name, answer in found if not statuses or answer.status in statuses]


def _has_message(name: str, answer: Answer) -> None:
    try:
        message = answer.document.get("message")
    except Failed as failed:
        raise Failed(f"{name}: {failed}") from None
    expect(isinstance(message, str) and message, f"{name}, status {answer.status}: message is no string, or empty")
