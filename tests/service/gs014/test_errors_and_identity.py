"""Errors of every kind have the standard's body (clause 6.5); who calls is known from the certificate (clause 5.1).

That the body is the standard's, of content type application/json, is checked by the client at every answer.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from mtls.authority import Authority
from tests.support.gs014_client import Sae
from tests.support.waiting import until


@pytest.mark.parametrize("path", ["/", "/api/v1/keys", "/api/v1/keys/x", "/api/v1/keys/x/keys", "/api/v2/keys/x/status",
                                  "/api/v1/keys//status", "/%ff"])  # fmt: skip
def test_unknown_path_is_404(alice, path):
    """With the standard's error body, not a page of the framework's."""
    assert alice.call("GET", path).status == 404


@pytest.mark.parametrize(
    ("method", "name", "allowed"),
    [("POST", "status", {"GET"}), ("DELETE", "status", {"GET"}), ("PUT", "enc_keys", {"GET", "POST"}),
     ("PATCH", "dec_keys", {"GET", "POST"}), ("OPTIONS", "enc_keys", {"GET", "POST"})],
)  # fmt: skip
def test_wrong_method_is_405_and_says_which_are_right(alice, bob, method, name, allowed):
    """RFC 9110: with an Allow header."""
    answer = alice.call(method, f"/api/v1/keys/{bob.id}/{name}")

    assert answer.status == 405
    assert {m.strip() for m in answer.headers["Allow"].split(",")} == allowed


def test_body_that_is_too_long_is_413(alice, bob):
    """Ten megabytes, of which few are read."""
    connection = alice.dial()
    connection.putrequest("POST", f"/api/v1/keys/{bob.id}/enc_keys")
    connection.putheader("Content-Length", str(10 << 20))
    connection.endheaders()

    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.parametrize("name", ["status", "enc_keys", "dec_keys"])
def test_sae_that_the_kme_does_not_know_is_401(stranger, bob, name):
    """A valid certificate is not enough; the answer has the error body and says how to be known."""
    answer = stranger.call("GET", f"/api/v1/keys/{bob.id}/{name}")

    assert answer.status == 401
    assert "WWW-Authenticate" in answer.headers


@pytest.mark.parametrize("name", ["status", "enc_keys", "dec_keys"])
def test_sae_of_another_site_is_401(kmes, carol, bob, name):
    """Clause 4: an SAE talks to the KME of its own site only."""
    elsewhere = kmes.sae(carol.id, "a")

    assert elsewhere.call("GET", f"/api/v1/keys/{bob.id}/{name}").status == 401


def test_ids_are_opaque(kmes):
    """Clause 4: whatever they are, keys come over a relay, and status names them as they are."""
    odd, strange = kmes.saes["odd"], kmes.saes["strange"]
    there, back = (quote(sae.id, safe="") for sae in (strange, odd))

    status = odd.status(there)
    # What a node that was late with its report has promised is too old by now: that is found out once.
    given = until(lambda: (found := odd.get(there, number=2)).status == 200 and found)

    assert (status["master_SAE_ID"], status["slave_SAE_ID"]) == (odd.id, strange.id)
    assert strange.fetch(back, *given.ids).keys == given.keys
    assert odd.call("GET", f"/api/v1/keys/{quote(strange.id.lower(), safe='')}/status").status == 400


@pytest.mark.parametrize("role", ["node", "controller", "operator"])
def test_other_parties_of_the_network_are_401(kmes, alice, bob, role):
    """Whoever is no SAE gets no keys, whatever else it may do."""
    other = kmes.sae(alice.id, "a")
    credentials = kmes.stack.issue(role, "someone")
    other.context.load_cert_chain(credentials.certificate, credentials.key)

    assert other.get(bob.id).status == 401


@pytest.mark.parametrize(
    ("uris", "status"),
    [(["urn:qkd:sae:ALICE", "https://elsewhere"], 200), ([], 401), (["urn:qkd:sae:ALICE", "urn:qkd:sae:BOB"], 401),
     (["urn:qkd:sae:ALICE", "urn:qkd:node:a"], 401), (["urn:qkd:king:ALICE"], 401), (["urn:qkd:sae:ALICE:x"], 401),
     (["https://qkd/sae/ALICE"], 401)],
    ids=str,
)  # fmt: skip
def test_certificate_that_names_no_sae_or_two_is_401(kmes, alice, tmp_path, uris, status):
    """Of the right CA, and with alice's ID as its common name: who somebody is may not be a matter of taste."""
    names = [uri.replace("ALICE", alice.id).replace("BOB", kmes.ids["bob"]) for uri in uris]
    somebody = kmes.sae(alice.id, "a")
    certificate = signed(kmes.stack.authority, alice, names, tmp_path / "somebody.pem")
    somebody.context.load_cert_chain(certificate, alice.credentials.key)

    until(lambda: somebody.get(kmes.ids["bob"]).status == status)  # not at once where promised bytes were too old


def signed(authority: Authority, owner: Sae, uris: list[str], path: Path) -> Path:
    """The owner's certificate with other URIs in it, signed anew by the CA."""
    old = x509.load_pem_x509_certificate(owner.credentials.certificate.read_bytes())
    builder = x509.CertificateBuilder(
        old.issuer, old.subject, old.public_key(), x509.random_serial_number(), old.not_valid_before_utc,
        old.not_valid_after_utc, [e for e in old.extensions if e.oid != x509.SubjectAlternativeName.oid],
    )  # fmt: skip
    names = [x509.DNSName("somebody"), *map(x509.UniformResourceIdentifier, uris)]
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    key = load_pem_private_key(authority.ca_key.read_bytes(), None)
    path.write_bytes(builder.sign(key, SHA256()).public_bytes(Encoding.PEM))
    return path


@pytest.mark.parametrize(
    "headers",
    [{"X-SAE-ID": "ID"}, {"X-SSL-Client-CN": "ID"}, {"X-Forwarded-Client-Cert": "Subject=CN=ID"},
     {"Authorization": "Basic ID"}, {"SSL_CLIENT_S_DN_CN": "ID"}],
    ids=str,
)  # fmt: skip
def test_no_header_makes_the_caller_somebody_else(alice, bob, mallory, headers):
    """Nor any query, nor any member of a body."""
    given = alice.get(bob.id)
    path = f"/api/v1/keys/{alice.id}/dec_keys"
    body = {"key_IDs": [{"key_ID": given.ids[0]}], "slave_SAE_ID": bob.id, "SAE_ID": bob.id}
    claimed = {name: value.replace("ID", bob.id) for name, value in headers.items()}

    assert mallory.call("POST", f"{path}?slave_SAE_ID={bob.id}", body, claimed).status == 401
    assert bob.fetch(alice.id, *given.ids).keys == given.keys


def test_no_key_stands_in_an_error(alice, bob, mallory):
    """Nor the IDs that were asked for: the caller has them."""
    given = alice.get(bob.id)
    refused = [mallory.fetch(alice.id, *given.ids), bob.fetch("nobody", *given.ids), bob.fetch(mallory.id, *given.ids)]

    text = str([(a.headers, a.body) for a in refused])
    (key,) = given.keys.values()
    assert given.body["keys"][0]["key"] not in text
    assert key.hex() not in text
    assert given.ids[0] not in text


def test_connection_is_kept_through_errors(alice, bob):
    """HTTP/1.1: a refusal is no reason to begin again."""
    connection = alice.dial()
    statuses = [alice.call("GET", f"/api/v1/keys/{slave}/status", over=connection).status
                for slave in (bob.id, "nobody", bob.id)]  # fmt: skip
    statuses.append(alice.call("PUT", f"/api/v1/keys/{bob.id}/status", over=connection).status)
    statuses.append(alice.post(bob.id, b"{", over=connection).status)
    statuses.append(alice.post(bob.id, b"{}", over=connection).status)
    connection.close()

    assert statuses == [200, 400, 200, 405, 400, 200]


def test_openapi_description_is_served_to_saes(alice):
    """It names the three methods, and both forms of two of them."""
    paths = alice.call("GET", "/api/v1/openapi.json").body["paths"]

    forms = {
        path.rpartition("/")[2]: {m for m in operations if m != "parameters"} for path, operations in paths.items()
    }
    assert forms == {"status": {"get"}, "enc_keys": {"get", "post"}, "dec_keys": {"get", "post"}}
