"""SAE IDs in URIs, in certificates and in DNS names."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from documents.checks import Malformed
from etsi.sae_id import from_uri, sae_id, to_uri
from mtls.identity import Identity, NotIdentified, Role, identity_from_uris

UUID = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
IDS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=128)


@given(IDS)
@example(UUID)
@example(UUID.upper())
@example(f"urn:uuid:{UUID}")
@example("urn:qkd:sae:x")
@example("app://x.example/y")
@example("URN:UUID:x")
def test_every_id_is_found_again_by_its_uri(sae):
    """In the letters in which it was declared, whatever it looks like; the URI itself is ASCII without blanks."""
    uri = to_uri(sae)

    assert from_uri(uri) == sae
    assert uri.isascii()
    assert " " not in uri


def test_uuids_and_uris_stand_as_they_are():
    """As controllers and nodes of others write and expect them."""
    assert to_uri(UUID) == UUID
    assert to_uri("app://x.example/y") == "app://x.example/y"
    assert to_uri(UUID.upper()) == f"urn:qkd:sae:{UUID.upper()}"
    assert {from_uri(u) for u in (UUID, UUID.upper(), f"urn:uuid:{UUID}", f"URN:UUID:{UUID.upper()}")} == {UUID}


@given(IDS)
@example("a/b c")
def test_certificate_says_the_id_and_a_dns_name_of_its_own(sae):
    """Each ID has one URI, and one name that a host may have."""
    found = Identity(Role.SAE, sae)

    assert identity_from_uris([found.uri]) == found
    assert len(found.label) <= 63
    assert Identity(Role.SAE, found.label) == found or found.label != sae
    assert found.dns == f"{found.label}.sae.qkd.internal"


@pytest.mark.parametrize(
    "uri", ["urn:qkd:sae:", "urn:qkd:sae:a/b", "urn:qkd:sae:%61", "urn:qkd:sae:%ff", "urn:qkd:sae:%0A",
            "urn:qkd:node:A", "urn:qkd:node:a%2Db", "urn:qkd:king:a", "urn:qkd:sae:" + "a" * 129],
)  # fmt: skip
def test_uri_in_another_form_names_nobody(uri):
    """Not encoded, encoded in two ways, no UTF-8, unprintable, too long, or of a role that has other names."""
    with pytest.raises(NotIdentified):
        identity_from_uris([uri])


@pytest.mark.parametrize("value", ["", "a" * 129, "a\nb", "\ud800", 7, None])
def test_what_is_no_id_is_refused_by_name(value):
    """1 to 128 printable characters."""
    with pytest.raises(Malformed, match=r"^peer: expected a printable string of 1 to 128 characters$"):
        sae_id(value, "peer")
