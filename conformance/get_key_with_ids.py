"""Get key with key IDs: clauses 5.4 and 6.4."""

from __future__ import annotations

import uuid

from conformance.checks import Chapter, Level, expect
from conformance.client import Answer, Body, key_ids
from conformance.pair import Keys, Pair, container, not_found, not_given, only_the_standards, refused, same_keys

CHAPTER = Chapter("Get key with key IDs")
_claims = CHAPTER.claims


@_claims("5.4", Level.REQUIRED)
def slave_gets_the_same(pair: Pair) -> None:
    """The slave gets the same key under the same key ID, by POST."""
    pair.fetched(pair.get())


@_claims("5.4, 6.4", Level.REQUIRED)
def slave_gets_the_same_by_get(pair: Pair) -> None:
    """The slave gets the same key under the same key ID, by GET with key_ID."""
    given = pair.get()
    answer = given.slave.fetch_by_query(given.master.id, f"key_ID={given.ids[0]}")
    same_keys(container(answer), given.by_id)


@_claims("5.4", Level.REQUIRED)
def roles_may_be_swapped(pair: Pair) -> None:
    """Who was slave may be master, and the other way round: the role belongs to the key."""
    pair.fetched(pair.get(master=pair.b))


@_claims("5.3, 5.4", Level.ADVISED)
def key_is_there_at_once(pair: Pair) -> None:
    """The key is at the slave's KME when the master has it: clients in use do not ask again."""
    given = pair.get()
    same_keys(container(_fetch(given, key_ids(*given.ids))), given.by_id)


@_claims("6.4", Level.REQUIRED)
def several_together(pair: Pair) -> None:
    """Several keys may be fetched in one request, in any order."""
    given = pair.get(pair.several)
    pair.fetched(given, *reversed(given.ids))


@_claims("6.4", Level.REQUIRED)
def one_by_one(pair: Pair) -> None:
    """Keys that came together may be fetched one by one."""
    given = pair.get(pair.several)
    for i in given.ids:
        pair.fetched(given, i)


@_claims("5.4, 6.4", Level.REQUIRED)
def of_several_requests_together(pair: Pair) -> None:
    """Keys of several Get key calls may be fetched in one request."""
    pair.must_give_two()
    first, second = pair.get(), pair.get()
    pair.fetched(Keys(first.master, first.slave, first.by_id | second.by_id))


@_claims("5.4", Level.REQUIRED)
def key_is_given_once(pair: Pair) -> None:
    """A key that was fetched is not there any more: the second time it is a 400 with the standard's message."""
    given = pair.get()
    pair.fetched(given)
    not_found(_fetch(given, key_ids(*given.ids)))
    not_found(given.slave.fetch_by_query(given.master.id, f"key_ID={given.ids[0]}"))


@_claims("6.4", Level.REQUIRED)
def unknown_key_id(pair: Pair) -> None:
    """A key ID that nobody knows is a 400 with the standard's message."""
    not_found(pair.b.fetch(pair.a.id, key_ids(str(uuid.uuid4()))))


@_claims("6.4", Level.REQUIRED)
def unknown_among_good_ones(pair: Pair) -> None:
    """One unknown key ID spoils a request: a 400 with the standard's message, and the good keys stay."""
    pair.must_give_two()
    given = pair.get()
    not_found(_fetch(given, key_ids(*given.ids, str(uuid.uuid4()))))
    pair.fetched(given)


@_claims("6.4", Level.REQUIRED)
def fetched_among_good_ones(pair: Pair) -> None:
    """So does a key ID that was fetched already; the others stay."""
    pair.must_give_two()
    given = pair.get(2)
    gone, there = given.ids
    pair.fetched(given, gone)
    not_found(_fetch(given, key_ids(gone, there)))
    pair.fetched(given, there)


@_claims("6.4", Level.REQUIRED)
def twice_in_one_request(pair: Pair) -> None:
    """A key ID that stands twice in a request gives its key once at most."""
    given = pair.get()
    answer = _fetch(given, key_ids(*given.ids, *given.ids))
    if answer.status == 200:
        expect(len(answer.document.get("keys", [])) == 1, "the key was given twice")
        not_found(_fetch(given, key_ids(*given.ids)))
    else:
        pair.fetched(given)


@_claims("5.4, 6.4", Level.REQUIRED)
def other_master_in_the_url(pair: Pair) -> None:
    """A key is not given to a slave that names another SAE than its master, and stays."""
    given = pair.get()
    for wrong in (given.slave.id, str(uuid.uuid4())):
        not_given(given.slave.fetch(wrong, key_ids(*given.ids)))
    pair.fetched(given)


@_claims("6.4", Level.ADVISED)
def key_id_in_capitals(pair: Pair) -> None:
    """A key ID may be written in capitals (RFC 4122, 3)."""
    given = pair.get()
    same_keys(container(_fetch(given, key_ids(given.ids[0].upper()))), given.by_id)


@_claims("6.4", Level.REQUIRED)
def reserved_extensions(pair: Pair) -> None:
    """key_ID_extension and key_IDs_extension are reserved, and do no harm."""
    given = pair.get()
    body = {"key_IDs": [{"key_ID": given.ids[0], "key_ID_extension": {"x": 1}}], "key_IDs_extension": {"y": []}}
    same_keys(container(_fetch(given, body)), given.by_id)


@_claims("6.3", Level.ADVISED)
def container_has_no_members_of_its_own(pair: Pair) -> None:
    """The slave's Key container has no members but the standard's."""
    given = pair.get()
    only_the_standards(_fetch(given, key_ids(*given.ids)))


@_claims("5.4, 6.4", Level.REQUIRED)
def body_that_is_no_json(pair: Pair) -> None:
    """A body that is not a JSON object is a 400, and the key stays."""
    given = pair.get()
    for body in (b"{", b"[]", b"key_ID=" + given.ids[0].encode()):
        refused(_fetch(given, body), what=body.decode())
    pair.fetched(given)


@_claims("6.4", Level.ADVISED)
def body_of_another_shape(pair: Pair) -> None:
    """A body without key_IDs, with none in it, with strings in place of objects, or with no UUID is a 400."""
    given = pair.get()
    (i,) = given.ids
    bodies: list[Body] = [
        {}, {"key_IDs": []}, {"key_IDs": [i]}, {"key_IDs": i}, {"key_IDs": [{}]}, {"key_IDs": [{"key_id": i}]},
        {"key_ids": [{"key_ID": i}]}, {"key_IDs": [{"key_ID": "x"}]}, {"key_IDs": [{"key_ID": 1}]}, b"",
    ]  # fmt: skip
    for body in bodies:
        refused(_fetch(given, body), what=str(body))
    pair.fetched(given)


@_claims("6.4", Level.ADVISED)
def query_of_another_shape(pair: Pair) -> None:
    """A GET that carries no key_ID, several of them, or more is a 400: such requests shall use POST."""
    given = pair.get()
    (i,) = given.ids
    for query in ("", "key_ID=", "key_ID=x", f"key_id={i}", f"key_ID={i}&key_ID={i}", f"key_ID={i}&x=1"):
        refused(given.slave.fetch_by_query(given.master.id, query), what=query or "no query")
    pair.fetched(given)


@_claims("6.1, 6.4", Level.ADVISED)
def more_ids_than_keys_may_be_asked_for(pair: Pair) -> None:
    """More key IDs than max_key_per_request are a 400."""
    number = pair.limit("max_key_per_request") + 1
    refused(pair.b.fetch(pair.a.id, key_ids(*(str(uuid.uuid4()) for _ in range(number)))))


def _fetch(given: Keys, body: Body) -> Answer:
    return given.slave.fetch(given.master.id, body)
