"""Who may ask, and for what: clauses 4, 5.1 and 5.4."""

from __future__ import annotations

import base64
import uuid

from conformance.checks import Chapter, Level, NotRun, expect
from conformance.client import Sae, key_ids
from conformance.pair import Pair, not_given, refused

CHAPTER = Chapter("Who may ask")
_claims = CHAPTER.claims
_CLAIMED = (
    "X-SAE-ID", "SAE-ID", "X-SSL-Client-CN", "X-Client-CN", "SSL_CLIENT_S_DN_CN", "X-Forwarded-User", "Remote-User",
)  # fmt: skip


@_claims("5.4", Level.REQUIRED)
def key_of_another_sae(pair: Pair) -> None:
    """A key is not given to an SAE that it is not for, and stays for the one that it is for."""
    other, given = _other(pair), pair.get()
    not_given(other.fetch(given.master.id, key_ids(*given.ids)))
    pair.fetched(given)


@_claims("5.4", Level.REQUIRED)
def key_of_another_sae_is_401(pair: Pair) -> None:
    """To an SAE that it is not for, a key is a 401."""
    other, given = _other(pair), pair.get()
    refused(other.fetch(given.master.id, key_ids(*given.ids)), 401)


@_claims("5.4, 6.4", Level.REQUIRED)
def foreign_among_unknown_ones(pair: Pair) -> None:
    """A key ID of another SAE spoils a request by a 401, whatever stands beside it."""
    other, given = _other(pair), pair.get()
    refused(other.fetch(given.master.id, key_ids(str(uuid.uuid4()), *given.ids)), 401)
    pair.fetched(given)


@_claims("5.4", Level.REQUIRED)
def master_does_not_fetch_its_own(pair: Pair) -> None:
    """The master is not among the SAE IDs that it gave: it does not get its own key by the key's ID."""
    given = pair.get()
    not_given(given.master.fetch(given.slave.id, key_ids(*given.ids)))
    not_given(given.master.fetch(given.master.id, key_ids(*given.ids)))
    pair.fetched(given)


@_claims("5.4", Level.ADVISED)
def master_that_fetches_its_own_is_401(pair: Pair) -> None:
    """A master that asks for its own key by the key's ID gets a 401."""
    given = pair.get()
    refused(given.master.fetch(given.slave.id, key_ids(*given.ids)), 401)


@_claims("5.1", Level.REQUIRED)
def header_names_nobody(pair: Pair) -> None:
    """No header field makes the caller another SAE than its certificate says."""
    given = pair.get()
    headers = dict.fromkeys(_CLAIMED, given.slave.id) | {
        "X-Forwarded-Client-Cert": f"Subject=CN={given.slave.id}", "From": given.slave.id,
        "Authorization": "Basic " + base64.b64encode(f"{given.slave.id}:".encode()).decode(),
    }  # fmt: skip
    for thief in (given.master.at(given.slave), given.master):
        not_given(thief.fetch(given.master.id, key_ids(*given.ids), headers=headers))
    pair.fetched(given)


@_claims("5.1", Level.REQUIRED)
def body_names_nobody(pair: Pair) -> None:
    """Nor does a member of the body or a parameter in the query."""
    given = pair.get()
    body = key_ids(*given.ids) | dict.fromkeys(["slave_SAE_ID", "SAE_ID", "caller"], given.slave.id)
    path = f"/api/v1/keys/{given.master.id}/dec_keys?slave_SAE_ID={given.slave.id}&SAE_ID={given.slave.id}"
    not_given(given.master.at(given.slave).call("POST", path, body))
    pair.fetched(given)


@_claims("4", Level.ADVISED)
def kme_of_another_site(pair: Pair) -> None:
    """An SAE that asks the KME of another site gets a 401."""
    refused(pair.b.at(pair.a).status(pair.a.id), 401)


@_claims("4", Level.REQUIRED)
def another_site_gives_no_keys_as_its_own(pair: Pair) -> None:
    """An SAE that asks the KME of another site gets no key of an SAE of that site."""
    given = pair.get(master=pair.b)
    not_given(pair.b.at(pair.a).fetch(pair.b.id, key_ids(*given.ids)))
    pair.fetched(given)


@_claims("5.4", Level.REQUIRED)
def refusal_quotes_no_key(pair: Pair) -> None:
    """A refusal does not show the key that is refused, in any form."""
    given = pair.get()
    (key,) = given.by_id.values()
    forms = (key, key.hex().encode(), key.hex().upper().encode(), base64.b64encode(key).rstrip(b"="))
    askers = [given.master, given.master.at(given.slave), *([pair.other] if pair.other else [])]
    for asker in askers:
        answer = asker.fetch(given.master.id, key_ids(*given.ids))
        shown = any(form in answer.raw for form in forms)
        expect(not shown, "THE KEY stands in the answer to an SAE that may not have it")
    pair.fetched(given)


def _other(pair: Pair) -> Sae:
    """The third SAE, at the KME of the slave."""
    if pair.other is None:
        raise NotRun("needs a third SAE: --other CERTIFICATE KEY")
    return pair.other.at(pair.b)
