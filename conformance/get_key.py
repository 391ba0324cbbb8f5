"""Get key: clauses 5.3, 6.2 and 6.3."""

from __future__ import annotations

import base64
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from conformance.checks import Chapter, Level, NotRun, expect
from conformance.client import Answer, Body
from conformance.pair import NOBODY, Pair, container, not_given, only_the_standards, refused

CHAPTER = Chapter("Get key")
_claims = CHAPTER.claims
_SIZE_NOT_OCTETS = "size shall be a multiple of 8"
_MANDATORY = "not all extension_mandatory parameters are supported"
_OPTIONAL = "not all extension_optional request options handled"
_CLIENTS = 8


@_claims("5.3, 6.2", Level.REQUIRED)
def empty_get(pair: Pair) -> None:
    """A GET without parameters gives one key of key_size bits."""
    container(pair.patiently(lambda: pair.a.get(pair.b.id)), number=1, size=pair.limit("key_size"))


@_claims("5.3, 6.2", Level.REQUIRED)
def empty_post(pair: Pair) -> None:
    """A POST of {} gives one key of key_size bits: every member of a Key request may be left out."""
    container(_posted(pair, {}), number=1, size=pair.limit("key_size"))


@_claims("5.3, 6.2", Level.ADVISED)
def post_without_a_body(pair: Pair) -> None:
    """A POST without a body is as one of {}."""
    container(_posted(pair, b""), number=1, size=pair.limit("key_size"))


@_claims("5.3, 6.2", Level.REQUIRED)
def get_with_number_and_size(pair: Pair) -> None:
    """A GET with number and size gives so many keys of so many bits."""
    query = {"number": pair.several, "size": pair.size}
    container(pair.patiently(lambda: pair.a.get(pair.b.id, query)), number=pair.several, size=pair.size)


@_claims("5.3, 6.2", Level.REQUIRED)
def post_with_number_and_size(pair: Pair) -> None:
    """A POST with number and size gives so many keys of so many bits."""
    pair.get(pair.several)


@_claims("5.3, 6.2", Level.REQUIRED)
def number_alone(pair: Pair) -> None:
    """A POST with number alone gives keys of key_size bits."""
    container(_posted(pair, {"number": 1}), number=1, size=pair.limit("key_size"))


@_claims("6.1, 6.2", Level.REQUIRED)
def smallest_key(pair: Pair) -> None:
    """A key of min_key_size is given, in so many bits."""
    _limit(pair, {"size": pair.limit("min_key_size")})


@_claims("6.1, 6.2", Level.REQUIRED)
def largest_key(pair: Pair) -> None:
    """A key of max_key_size is given in so many bits, or refused by 503 while there is too little key material."""
    _limit(pair, {"size": pair.limit("max_key_size")})


@_claims("6.1, 6.2", Level.REQUIRED)
def most_keys(pair: Pair) -> None:
    """max_key_per_request keys are given, or refused by 503 while there is too little key material."""
    _limit(pair, {"number": pair.limit("max_key_per_request"), "size": pair.size})


@_claims("6.3", Level.REQUIRED)
def key_ids_are_uuids(pair: Pair) -> None:
    """key_ID is a UUID in its text form, and no two are alike."""
    ids = [i for _ in range(2) for i in pair.get(pair.several).ids]
    for i in ids:
        expect(str(uuid.UUID(i)) == i.lower(), f"{i} is no text form of a UUID")
    expect(len({i.lower() for i in ids}) == len(ids), "two keys have one key_ID")


@_claims("6.3 (RFC 4122, 3)", Level.ADVISED)
def key_ids_are_random_and_in_lower_case(pair: Pair) -> None:
    """key_ID is a random UUID (version 4), in lower case."""
    for i in pair.get(pair.several).ids:
        expect(i == i.lower() and uuid.UUID(i).version == 4, i)


@_claims("6.3 (RFC 4648, 4)", Level.REQUIRED)
def keys_are_base64(pair: Pair) -> None:
    """key is in standard base64, padded, without line breaks: not base64url."""
    number = pair.several
    answer = _posted(pair, {"number": number, "size": pair.size})
    container(answer, number=number, size=pair.size)
    for entry in answer.document["keys"]:
        text = entry["key"]
        expect(base64.b64encode(base64.b64decode(text)).decode() == text, "the padding or the alphabet is another one")


@_claims("6.3", Level.REQUIRED)
def keys_differ(pair: Pair) -> None:
    """No two keys are the same bytes, in one answer or in several."""
    _all_differ([key for _ in range(2) for key in pair.get(pair.several).by_id.values()])


@_claims("6.3", Level.ADVISED)
def container_has_no_members_of_its_own(pair: Pair) -> None:
    """A Key container has no members but the standard's; the extensions take what is the KME's own."""
    only_the_standards(_posted(pair, {"size": pair.size}))


@_claims("6.1, 6.2", Level.REQUIRED)
def too_many_keys_are_not_clipped(pair: Pair) -> None:
    """More keys than max_key_per_request are never answered with fewer."""
    number = pair.limit("max_key_per_request") + 1
    answer = pair.a.post(pair.b.id, {"number": number, "size": pair.size})
    if answer.status == 200:
        container(answer, number=number, size=pair.size)


@_claims("6.1, 6.2", Level.ADVISED)
def too_many_keys_are_refused(pair: Pair) -> None:
    """More keys than max_key_per_request are a 400."""
    refused(pair.a.post(pair.b.id, {"number": pair.limit("max_key_per_request") + 1, "size": pair.size}))


@_claims("6.1, 6.2", Level.REQUIRED)
def too_large_a_key_is_not_cut(pair: Pair) -> None:
    """A key of more than max_key_size is never answered with one of another size."""
    _not_of_another_size(pair, pair.limit("max_key_size") + 8)


@_claims("6.1, 6.2", Level.REQUIRED)
def too_small_a_key_is_not_lengthened(pair: Pair) -> None:
    """A key of less than min_key_size is never answered with one of another size."""
    size = (pair.limit("min_key_size") - 1) // 8 * 8
    if size == 0:
        raise NotRun("min_key_size is at most 8 bits")
    _not_of_another_size(pair, size)


@_claims("6.1, 6.2", Level.ADVISED)
def sizes_beyond_the_limits_are_refused(pair: Pair) -> None:
    """A key of more than max_key_size is a 400, and so is one of 0 bits."""
    for size in (pair.limit("max_key_size") + 8, 0):
        refused(pair.a.post(pair.b.id, {"size": size}))


@_claims("6.2", Level.REQUIRED)
def odd_size_by_post(pair: Pair) -> None:
    """A size that is no multiple of 8 is served, or is a 400 with the standard's message, by POST."""
    _odd_size(pair, pair.a.post(pair.b.id, {"size": _odd(pair)}))


@_claims("6.2", Level.REQUIRED)
def odd_size_by_get(pair: Pair) -> None:
    """A size that is no multiple of 8 is served, or is a 400 with the standard's message, by GET."""
    _odd_size(pair, pair.a.get(pair.b.id, {"size": _odd(pair)}))


@_claims("6.2", Level.ADVISED)
def number_of_another_kind(pair: Pair) -> None:
    """A number that is 0, negative, a string, true or 1.5 is a 400."""
    _each_is_refused(pair, [{"number": wrong} for wrong in (0, -1, "1", True, 1.5, [1])])


@_claims("6.2", Level.ADVISED)
def size_of_another_kind(pair: Pair) -> None:
    """A size that is negative, a string, true or 256.5 is a 400."""
    wrong: list[Any] = [-8, "256", True, 256.5, {}]
    _each_is_refused(pair, [{"size": size} for size in wrong])


@_claims("6.2", Level.ADVISED)
def query_of_another_kind(pair: Pair) -> None:
    """Text in a query that is no decimal integer is a 400."""
    for query in ("number=x", "number=1_0", "number=", "size=0x40", "size=-8", "size=64.0"):
        refused(pair.a.get(pair.b.id, query), what=query)


@_claims("6.2", Level.ADVISED)
def query_that_shall_be_a_post(pair: Pair) -> None:
    """A GET with more than number and size, each once, is a 400: such requests shall use POST."""
    for query in ("extension_mandatory=%5B%5D", "additional_slave_SAE_IDs=x", "number=1&number=1"):
        refused(pair.a.get(pair.b.id, query), what=query)


@_claims("6.2", Level.REQUIRED)
def mandatory_extension(pair: Pair) -> None:
    """An extension_mandatory that no KME knows is a 400 with the standard's message."""
    _mandatory(pair, [{"nosuch_vendor_option": 1}])


@_claims("6.2", Level.REQUIRED)
def mandatory_extension_further_on(pair: Pair) -> None:
    """The same in the second object of the array: all of them count."""
    _mandatory(pair, [{}, {"nosuch_vendor_option": {"x": [None]}}])


@_claims("6.2", Level.REQUIRED)
def optional_extension(pair: Pair) -> None:
    """An extension_optional that no KME knows is ignored, or is a 400 with the standard's message."""
    answer = _posted(pair, {"size": pair.size, "extension_optional": [{"nosuch_vendor_option": 1}]}, known=_OPTIONAL)
    if answer.status == 400:
        _says(answer, _OPTIONAL)
    else:
        container(answer, number=1, size=pair.size)


@_claims("6.2", Level.REQUIRED)
def empty_arrays(pair: Pair) -> None:
    """Arrays of extensions and of further slaves may be empty, which is as if they were left out."""
    names = ("extension_mandatory", "extension_optional", "additional_slave_SAE_IDs")
    body: dict[str, Any] = {"size": pair.size} | {name: [] for name in names}
    container(_posted(pair, body), number=1, size=pair.size)


@_claims("6.2", Level.ADVISED)
def arrays_of_another_kind(pair: Pair) -> None:
    """An object or a string in the place of an array of extensions is a 400."""
    names = ("extension_mandatory", "extension_optional", "additional_slave_SAE_IDs")
    _each_is_refused(pair, [{name: wrong} for name in names for wrong in ({"x": 1}, "x")])


@_claims("6.1, 6.2", Level.REQUIRED)
def too_many_slaves(pair: Pair) -> None:
    """More additional_slave_SAE_IDs than max_SAE_ID_count are refused."""
    slaves = [str(uuid.uuid4()) for _ in range(pair.limit("max_SAE_ID_count") + 1)]
    not_given(pair.a.post(pair.b.id, {"size": pair.size, "additional_slave_SAE_IDs": slaves}))


@_claims("6.2", Level.ADVISED)
def unknown_members_are_ignored(pair: Pair) -> None:
    """Members that the standard does not define are ignored: extensions have a place of their own."""
    container(_posted(pair, {"size": pair.size, "nosuch": 1, "Number": "x"}), number=1, size=pair.size)


@_claims("6.2", Level.ADVISED)
def null_is_left_out(pair: Pair) -> None:
    """Members that are null count as left out: some clients write what their user did not give."""
    body = {"size": pair.size} | dict.fromkeys(["number", "extension_mandatory", "extension_optional"])
    container(_posted(pair, body), number=1, size=pair.size)


@_claims("5.3, 6.2", Level.REQUIRED)
def body_that_is_no_json(pair: Pair) -> None:
    """A body that is not JSON is a 400."""
    for body in (b"{", b'{"number": }', b"number=1"):
        refused(pair.a.post(pair.b.id, body), what=body.decode())


@_claims("5.3, 6.2", Level.REQUIRED)
def body_that_is_no_object(pair: Pair) -> None:
    """A body that is JSON and no object is a 400."""
    for body in (b"[]", b"1", b'"x"'):
        refused(pair.a.post(pair.b.id, body), what=body.decode())


@_claims("5.3", Level.ADVISED)
def body_that_attacks_a_reader(pair: Pair) -> None:
    """Deep JSON, integers of 5,000 digits, NaN and bytes that are no UTF-8 are a 400."""
    deep = b'{"extension_optional": ' + b"[" * 5000 + b"]" * 5000 + b"}"
    for what, body in (("deep JSON", deep), ("a long integer", b'{"number": ' + b"9" * 5000 + b"}"),
                       ("NaN", b'{"number": NaN}'), ("no UTF-8", b'{"x": "\xff"}')):  # fmt: skip
        refused(pair.a.post(pair.b.id, body), what=what)


@_claims("5.3", Level.ADVISED)
def unknown_slave(pair: Pair) -> None:
    """Keys for an SAE that nobody knows are a 400, and so are keys to share with oneself."""
    for slave in (NOBODY, pair.a.id):
        refused(pair.a.post(slave, {"size": pair.size}), what=f"slave {slave}")


@_claims("5.1 (RFC 3986, 2.1)", Level.REQUIRED)
def percent_encoded_slave(pair: Pair) -> None:
    """An SAE ID in a path may be percent-encoded, whatever its characters are."""
    encoded = "".join(f"%{byte:02X}" for byte in pair.b.id.encode())
    path = f"/api/v1/keys/{encoded}/enc_keys?size={pair.size}"
    container(pair.patiently(lambda: pair.a.call("GET", path)), number=1, size=pair.size)


@_claims("5.3", Level.REQUIRED)
def many_at_once(pair: Pair) -> None:
    """Masters that ask at the same moment get different keys."""
    pair.get()  # so that what needs to be opened is open
    with ThreadPoolExecutor(_CLIENTS) as pool:
        given = list(pool.map(lambda _: pair.get(), range(_CLIENTS)))
    _all_differ([key for keys in given for key in keys.by_id.values()])
    expect(len({i for keys in given for i in keys.ids}) == _CLIENTS, "two keys have one key_ID")


@_claims("5.3", Level.REQUIRED)
def both_as_masters_at_once(pair: Pair) -> None:
    """Both SAEs may be masters at the same moment: each gets keys, the slaves get the same, and none is given twice."""
    masters = [master for _ in range(_CLIENTS // 2) for master in pair.both]
    with ThreadPoolExecutor(_CLIENTS) as pool:
        given = list(pool.map(lambda master: pair.get(master=master), masters))
    _all_differ([key for keys in given for key in keys.by_id.values()])
    for keys in given:
        pair.fetched(keys)


def _odd(pair: Pair) -> int:
    """A size within the limits that is no multiple of 8, bits."""
    least, most = pair.limit("min_key_size"), pair.limit("max_key_size")
    for size in (least, least + 1):
        if size % 8 and size <= most:
            return size
    raise NotRun(f"there is none from {least} to {most} bits")


def _posted(pair: Pair, body: Body, known: str = "") -> Answer:
    """The answer to a request that is right, once there is key material; or one with the message `known`, at once."""
    first = pair.a.post(pair.b.id, body)
    if first.status == 400 and known and known in first.said:
        return first
    return first if first.status == 200 else pair.patiently(lambda: pair.a.post(pair.b.id, body))


def _limit(pair: Pair, body: dict[str, int]) -> None:
    answer = pair.a.post(pair.b.id, body)
    if answer.status != 503:
        container(answer, number=body.get("number", 1), size=body["size"])


def _not_of_another_size(pair: Pair, size: int) -> None:
    answer = pair.a.post(pair.b.id, {"size": size})
    if answer.status == 200:
        container(answer, size=size)


def _odd_size(pair: Pair, answer: Answer) -> None:
    if answer.status == 400:
        _says(answer, _SIZE_NOT_OCTETS)
    elif answer.status == 503:
        raise NotRun(answer.said)
    else:
        container(answer, size=_odd(pair))


def _mandatory(pair: Pair, extensions: list[dict[str, Any]]) -> None:
    answer = pair.a.post(pair.b.id, {"size": pair.size, "extension_mandatory": extensions})
    refused(answer)
    _says(answer, _MANDATORY)


def _says(answer: Answer, message: str) -> None:
    expect(answer.document.get("message") == message, f"the message is not `{message}`, but {answer.said}")


def _each_is_refused(pair: Pair, bodies: list[dict[str, Any]]) -> None:
    for body in bodies:
        refused(pair.a.post(pair.b.id, body), what=str(body))


def _all_differ(keys: list[bytes]) -> None:
    expect(len(set(keys)) == len(keys), "THE SAME KEY was given twice")
