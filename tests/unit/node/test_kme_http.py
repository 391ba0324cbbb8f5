"""What the KME's routes do with keys, beside handing them out."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from werkzeug.test import create_environ

from documents.secret import Secret
from etsi.gs014 import Limits
from mtls.connections.wsgi import call
from mtls.identity import Identity, Role
from mtls.serve import IDENTITY, OUTCOME, Outcome
from node.associations.sessions import Session
from node.http.kme_http import make_app
from node.serving.delivery import Delivered

ALICE, BOB, KEY_ID = (f"{n:08d}-0000-4000-8000-000000000000" for n in range(3))
KEY = b"0123456789abcdef"


REQUESTS = ["enc_keys", f"dec_keys?key_ID={KEY_ID}"]


def ask(
    what: str, keys: list[tuple[str, Secret]], told: SimpleNamespace, lost: Callable[[str, list[str]], object] = print
) -> tuple[dict, Outcome]:
    """The KME's answer to Alice, and whom it wants to be told what becomes of the answer."""
    kme = SimpleNamespace(
        lost_on_the_way=lost,
        limits=Limits(), mode="basic", check_local=lambda _: None,
        session=lambda *_: Session(KEY_ID, ALICE, BOB, ("a", "b"), ("a-b/1",), "link"),
        get_keys=lambda *_: Delivered(keys, "direct", "basic", 1), get_keys_by_id=lambda *_: keys,
    )  # fmt: skip
    environ = create_environ(f"/api/v1/keys/{BOB}/{what}") | {IDENTITY: Identity(Role.SAE, ALICE)}
    _, _, answer = call(make_app(kme, None, told, told), environ)
    return json.loads(answer), environ[OUTCOME]


@pytest.mark.parametrize("what", REQUESTS)
def test_key_is_wiped_as_soon_as_the_answer_has_it(what):
    """Used bytes are erased from memory, too, as far as they are ours."""
    keys = [(KEY_ID, Secret(KEY))]

    answer, _ = ask(what, keys, SimpleNamespace(event=lambda *_, **__: None))

    assert answer == {"keys": [{"key_ID": KEY_ID, "key": base64.b64encode(KEY).decode()}]}
    assert len(keys[0][1]) == 0


@pytest.mark.parametrize("what", REQUESTS)
def test_lost_keys_are_told_with_the_method_that_they_were_asked_for_by(what):
    """Of which allocation they were, is not known here."""
    told: list[tuple[str, dict]] = []
    silent = {"delivered": lambda *_, **__: None, "failed": lambda *_: None}
    events = SimpleNamespace(event=lambda name, **facts: told.append((name, facts)), **silent)
    _, outcome = ask(what, [(KEY_ID, Secret(KEY))], events, lambda *_: None)
    outcome.lost()

    name, facts = told[-1]
    assert (name, facts["method"], facts["key_ids"]) == ("lost", what.partition("?")[0], [KEY_ID])
    assert "allocation" not in facts


@pytest.mark.parametrize("what", REQUESTS)
def test_keys_count_as_delivered_when_the_answer_is_written_and_else_as_lost(what):
    """Not before: the client may be gone."""
    counted: list[tuple] = []
    told = SimpleNamespace(
        event=lambda event, **facts: counted.append((event, facts["key_ids"], facts.get("cause"))),
        delivered=lambda kind, n, *_, **__: counted.append(("delivered", kind, n)),
        failed=lambda kind, cause: counted.append(("failed", kind, cause)),
    )
    kind = what.partition("?")[0]
    _, outcome = ask(what, [(KEY_ID, Secret(KEY))], told, lambda *what: counted.append(("by QC", *what)))
    assert counted == [("key_delivered", [KEY_ID], None)]

    counted.clear()
    outcome.taken()
    assert counted == [("delivered", kind, 1)]

    counted.clear()
    outcome.lost()
    assert counted == [
        ("lost", [KEY_ID], "answer_not_taken"), ("failed", kind, "answer_not_taken"),
        ("by QC", "answer_not_taken", [KEY_ID]),
    ]  # fmt: skip
