"""Get status: clauses 5.2 and 6.1."""

from __future__ import annotations

from conformance.checks import Chapter, Level, expect
from conformance.pair import NOBODY, Pair, not_given, refused

CHAPTER = Chapter("Get status")
_claims = CHAPTER.claims
_TEXTS = ("source_KME_ID", "target_KME_ID", "master_SAE_ID", "slave_SAE_ID")
_NUMBERS = (
    "key_size", "stored_key_count", "max_key_count", "max_key_per_request", "max_key_size", "min_key_size",
    "max_SAE_ID_count",
)  # fmt: skip


@_claims("5.2", Level.REQUIRED)
def status_is_given(pair: Pair) -> None:
    """An SAE gets the Status of keys for the other one, at either KME."""
    for sae in pair.both:
        answer = sae.status(pair.peer(sae).id)
        expect(answer.status == 200, f"{sae.url}: {answer.said}")


@_claims("6.1", Level.REQUIRED)
def names_are_strings(pair: Pair) -> None:
    """source_KME_ID, target_KME_ID, master_SAE_ID and slave_SAE_ID are there, and strings."""
    for member in _TEXTS:
        expect(isinstance(pair.status.get(member), str), f"{member} is {_kind(pair, member)}")


@_claims("6.1", Level.REQUIRED)
def numbers_are_integers(pair: Pair) -> None:
    """The seven sizes and counts are there, and integers."""
    for member in _NUMBERS:
        pair.limit(member)


@_claims("6.1", Level.REQUIRED)
def master_is_the_caller(pair: Pair) -> None:
    """master_SAE_ID is the SAE that asks, as its certificate has it."""
    found = pair.status.get("master_SAE_ID")
    expect(found == pair.a.id, f"{found}, where {pair.a.id} asks")


@_claims("6.1", Level.REQUIRED)
def slave_is_the_one_in_the_url(pair: Pair) -> None:
    """slave_SAE_ID is the SAE in the URL."""
    found = pair.status.get("slave_SAE_ID")
    expect(found == pair.b.id, f"{found}, where the URL has {pair.b.id}")


@_claims("6.1", Level.REQUIRED)
def kmes_name_each_other(pair: Pair) -> None:
    """source_KME_ID at one KME is target_KME_ID at the other one."""
    there, back = pair.status, pair.b.status(pair.a.id).document
    for source, target in ((there, back), (back, there)):
        found = source.get("source_KME_ID"), target.get("target_KME_ID")
        expect(found[0] == found[1], f"{found[0]} calls itself so, and is called {found[1]} there")


@_claims("6.1", Level.REQUIRED)
def key_size_is_within_its_limits(pair: Pair) -> None:
    """min_key_size is at most key_size, and that at most max_key_size."""
    least, usual, most = (pair.limit(f"{word}key_size") for word in ("min_", "", "max_"))
    expect(0 < least <= usual <= most, f"{least}, {usual}, {most}")


@_claims("6.1", Level.REQUIRED)
def stock_is_within_its_limit(pair: Pair) -> None:
    """stored_key_count is not negative, and at most max_key_count."""
    stored, most = pair.limit("stored_key_count"), pair.limit("max_key_count")
    expect(0 <= stored <= most, f"{stored} of at most {most}")


@_claims("6.1", Level.REQUIRED)
def some_key_may_be_asked_for(pair: Pair) -> None:
    """max_key_per_request is at least 1."""
    expect(pair.limit("max_key_per_request") >= 1, str(pair.limit("max_key_per_request")))


@_claims("6.1", Level.REQUIRED)
def further_slaves_are_counted(pair: Pair) -> None:
    """max_SAE_ID_count is not negative: 0 says that there is no multicast."""
    expect(pair.limit("max_SAE_ID_count") >= 0, str(pair.limit("max_SAE_ID_count")))


@_claims("6.1", Level.ADVISED)
def three_keys_at_once(pair: Pair) -> None:
    """max_key_per_request is at least 3, and 256 bits lie within the limits: clients in use ask for that."""
    number = pair.limit("max_key_per_request")
    expect(number >= 3, f"max_key_per_request is {number}")
    least, most = pair.limit("min_key_size"), pair.limit("max_key_size")
    expect(least <= 256 <= most, f"sizes from {least} to {most} bits")


@_claims("6.1", Level.ADVISED)
def status_has_no_members_of_its_own(pair: Pair) -> None:
    """Status has no members but the standard's; status_extension takes what is the KME's own."""
    own = set(pair.status) - {*_TEXTS, *_NUMBERS, "status_extension"}
    expect(not own, ", ".join(sorted(own)))


@_claims("5.2", Level.ADVISED)
def status_for_an_unknown_slave_is_refused(pair: Pair) -> None:
    """Status for an SAE that nobody knows is a 400."""
    refused(pair.a.status(NOBODY))


@_claims("5.2", Level.ADVISED)
def status_for_oneself_is_refused(pair: Pair) -> None:
    """Status for keys to share with oneself is a 400."""
    refused(pair.a.status(pair.a.id))


@_claims("5.2 (RFC 9110, 15.5.6)", Level.ADVISED)
def status_is_not_posted(pair: Pair) -> None:
    """POST of status is a 405 with an Allow header that has GET."""
    answer = pair.a.call("POST", f"/api/v1/keys/{pair.b.id}/status", {})
    not_given(answer)
    refused(answer, 405)
    allowed = answer.headers.get("Allow", "")
    expect("GET" in allowed, f"Allow: {allowed}")


def _kind(pair: Pair, member: str) -> str:
    return "missing" if member not in pair.status else f"of type {type(pair.status[member]).__name__}"
