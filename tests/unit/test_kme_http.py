"""What the KME's routes do with keys, beside handing them out."""

from __future__ import annotations

import base64
from types import SimpleNamespace

import pytest

from etsi.gs014 import Limits
from etsi.secret import Secret
from mtls.identity import Identity, Role
from mtls.serve import IDENTITY
from node.kme import Delivery
from node.kme_http import make_app
from node.sessions import Session

ALICE, BOB, KEY_ID = (f"{n:08d}-0000-4000-8000-000000000000" for n in range(3))
KEY = b"0123456789abcdef"


@pytest.mark.parametrize("what", ["enc_keys", f"dec_keys?key_ID={KEY_ID}"])
def test_key_is_wiped_as_soon_as_the_answer_has_it(what):
    """Used bytes are erased from memory, too, as far as they are ours."""
    keys = [(KEY_ID, Secret(KEY))]
    kme = SimpleNamespace(
        limits=Limits(), mode="basic", check_local=lambda _: None,
        session=lambda *_: Session(KEY_ID, ALICE, BOB, ("a", "b"), ("a-b/1",), "link"),
        get_keys=lambda *_: Delivery(keys, "direct"), get_keys_by_id=lambda *_: keys,
    )  # fmt: skip
    told = SimpleNamespace(event=lambda *_, **__: None, delivered=lambda *_, **__: None)

    answer = (
        make_app(kme, None, told, told)
        .test_client()
        .get(f"/api/v1/keys/{BOB}/{what}", environ_overrides={IDENTITY: Identity(Role.SAE, ALICE)})
    )

    assert answer.json == {"keys": [{"key_ID": KEY_ID, "key": base64.b64encode(KEY).decode()}]}
    assert len(keys[0][1]) == 0
