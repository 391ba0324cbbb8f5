"""Transport: GS QKD 014, clauses 4 and 5.1. Mutual TLS 1.2 or 1.3, and the KME serves on whatever is refused."""

from __future__ import annotations

import datetime
import http.client
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from mtls.authority import Authority
from mtls.identity import Identity, Role
from tests.support.gs014_client import Sae

NO_ANSWER = (OSError, http.client.HTTPException)


def test_kme_at_the_loopback_address_is_localhost_too(alice):
    """A client that checks names calls it either way; no SAE's certificate will do for it."""
    port = alice.address.rpartition(":")[2]
    connection = http.client.HTTPSConnection("localhost", int(port), context=alice.context, timeout=10)
    connection.request("GET", "/api/v1/openapi.json")
    assert connection.getresponse().status == 200
    connection.close()

    names = x509.load_pem_x509_certificate(Path(alice.credentials.certificate).read_bytes()).extensions
    assert "localhost" not in str(names.get_extension_for_class(x509.SubjectAlternativeName))


def test_every_user_may_read_the_certificate_of_the_ca(alice):
    """Whoever checks a KME needs it; private keys are their owners' alone."""
    ca = Path(alice.credentials.ca)

    assert ca.stat().st_mode & 0o777 == 0o644
    assert ca.parent.stat().st_mode & 0o777 == 0o711


@pytest.fixture(autouse=True)
def _server_stays_up(alice: Sae, bob: Sae) -> Iterator[None]:
    """Whatever a test did: those who may ask are answered."""
    yield
    assert alice.get(bob.id).status == 200


def context(alice: Sae, **options: ssl.TLSVersion) -> ssl.SSLContext:
    """As alice trusts the network's CA, without a certificate of her own."""
    found = ssl.create_default_context(cafile=str(alice.credentials.ca))
    for name, value in options.items():
        setattr(found, name, value)
    return found


def ask(alice: Sae, tls: ssl.SSLContext) -> tuple[int, str]:
    """Status and TLS version of alice's question, asked with that context."""
    host, port = alice.address.split(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as raw,
        tls.wrap_socket(raw, server_hostname=host) as connection,
    ):
        connection.sendall(b"GET /api/v1/keys/x/status HTTP/1.1\r\nHost: x\r\n\r\n")
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, connection.version() or ""


def refusal(alice: Sae, tls: ssl.SSLContext) -> str:
    """What the server says to a client with that context: TLS 1.3 shows it at the first read."""
    host, port = alice.address.split(":")
    with pytest.raises(ssl.SSLError) as error, socket.create_connection((host, int(port)), timeout=10) as raw:  # noqa: SIM117
        with tls.wrap_socket(raw, server_hostname=host) as connection:
            connection.recv(1)
    return error.value.reason


@pytest.mark.parametrize(("version", "name"), [("TLSv1_2", "TLSv1.2"), ("TLSv1_3", "TLSv1.3")])
def test_both_versions_are_served(alice, version, name):
    """The standard refers to both."""
    only = ssl.TLSVersion[version]
    tls = context(alice, minimum_version=only, maximum_version=only)
    tls.load_cert_chain(alice.credentials.certificate, alice.credentials.key)

    assert ask(alice, tls) == (400, name)


def test_tls_1_1_is_refused(alice):
    """The server says so in the handshake: it is not our own side that will not speak it."""
    tls = context(alice)
    tls.load_cert_chain(alice.credentials.certificate, alice.credentials.key)
    tls.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        tls.minimum_version = tls.maximum_version = ssl.TLSVersion.TLSv1_1

    assert refusal(alice, tls) == "TLSV1_ALERT_PROTOCOL_VERSION"


def test_client_without_a_certificate_is_refused(alice):
    """And told so."""
    assert refusal(alice, context(alice)) == "TLSV13_ALERT_CERTIFICATE_REQUIRED"


def test_certificate_of_another_ca_is_refused(alice, tmp_path):
    """Even of one that has the same name and names the same SAE."""
    forged = Authority(tmp_path / "other").issue(Identity(Role.SAE, alice.id), addresses=["127.0.0.1"])
    tls = context(alice)
    tls.load_cert_chain(forged.certificate, forged.key)

    assert refusal(alice, tls) in ("TLSV1_ALERT_UNKNOWN_CA", "TLSV1_ALERT_DECRYPT_ERROR")


def test_expired_certificate_is_refused(kmes, alice):
    """Of the right CA, and of an SAE that is known here."""
    tls = context(alice)
    old = kmes.stack.authority.issue(
        Identity(Role.SAE, alice.id), valid=datetime.timedelta(hours=-2), stem="expired-alice"
    )
    tls.load_cert_chain(old.certificate, old.key)

    assert refusal(alice, tls) == "SSLV3_ALERT_CERTIFICATE_EXPIRED"


@pytest.mark.parametrize("most", ["TLSv1_2", "TLSv1_3"])
def test_certificate_without_its_key_is_refused(alice, mallory, tmp_path, most):
    """Alice's certificate, which is no secret, with a key of mallory's: the signature in the handshake is wrong."""
    tls = context(alice, maximum_version=ssl.TLSVersion[most])
    tls.load_cert_chain(alice.credentials.certificate, forged_key(alice, mallory, tmp_path / "forged.key"))

    assert refusal(alice, tls) in ("TLSV1_ALERT_DECRYPT_ERROR", "SSLV3_ALERT_HANDSHAKE_FAILURE")


def forged_key(owner: Sae, thief: Sae, path: Path) -> Path:
    """The thief's private key in a file that says that its public key is the owner's: OpenSSL believes it.

    An ECPrivateKey on P-256 (RFC 5915): version 1, private key, curve, public key.
    """
    certificate = x509.load_pem_x509_certificate(owner.credentials.certificate.read_bytes())
    point = certificate.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    key = load_pem_private_key(thief.credentials.key.read_bytes(), None)
    scalar = key.private_numbers().private_value.to_bytes(32)
    der = bytes.fromhex("30770201010420") + scalar + bytes.fromhex("a00a06082a8648ce3d030107a144034200") + point
    path.write_text(ssl.DER_cert_to_PEM_cert(der).replace("CERTIFICATE", "EC PRIVATE KEY"))
    return path


def test_plain_http_is_refused(alice):
    """Not so much as an error page."""
    plain = http.client.HTTPConnection(alice.address, timeout=10)
    plain.request("GET", "/api/v1/keys/x/status")

    with pytest.raises(NO_ANSWER):
        plain.getresponse()
    plain.close()


def test_client_need_not_speak_first(alice):
    """A connection on which nothing is said holds up nobody; the check after this test shows it."""
    host, port = alice.address.split(":")
    silent = [socket.create_connection((host, int(port)), timeout=10) for _ in range(100)]
    try:
        assert alice.call("GET", "/nowhere").status == 404
    finally:
        for connection in silent:
            connection.close()


def test_certificate_of_a_kme_says_which_one_it_is(kmes, alice):
    """Clause 4: the SAE reads the KME ID from it. Strict checks pass, for the address and for the name."""
    tls = context(alice)
    tls.verify_flags |= ssl.VERIFY_X509_STRICT
    tls.load_cert_chain(alice.credentials.certificate, alice.credentials.key)
    host, port = alice.address.split(":")
    for name in (host, Identity(Role.NODE, "a").dns):
        with (
            socket.create_connection((host, int(port)), timeout=10) as raw,
            tls.wrap_socket(raw, server_hostname=name) as connection,
        ):
            certificate = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
            (common_name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            assert (
                common_name.value
                == "a"
                == alice.call("GET", f"/api/v1/keys/{kmes.ids['bob']}/status").body["source_KME_ID"]
            )


def test_private_keys_are_for_their_owner_only(alice):
    """Mode 0600 for the key, and the CA's certificate beside it."""
    assert Path(alice.credentials.key).stat().st_mode & 0o777 == 0o600
    assert Path(alice.credentials.ca).exists()
