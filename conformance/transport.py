"""Transport: clauses 4 and 5.1."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from conformance.checks import Chapter, Failed, Level, NotRun, expect
from conformance.client import Certificate, Sae, key_ids, only_tls_1_1, reason
from conformance.pair import Pair, container

CHAPTER = Chapter("Transport")
_claims = CHAPTER.claims
_OK = b"HTTP/1.1 200"
_PLAIN_S = 10.0  # a server that waits for TLS may say nothing at all
# What OpenSSL says of itself when it does not speak an old version at all.
_OWN_REFUSAL = ("NO_PROTOCOLS_AVAILABLE", "NO_CIPHERS_AVAILABLE", "UNSUPPORTED_PROTOCOL", "INTERNAL_ERROR")


@_claims("4, 5.1", Level.REQUIRED)
def certificate_of_the_kme_holds(pair: Pair) -> None:
    """The KME's certificate is signed by the CA, and made out for the host in the URL."""
    for sae in pair.both:
        with _handshake(sae, sae.context(sae.certificate, any_name=False)):
            pass


@_claims("4, 5.1", Level.ADVISED)
def certificate_of_the_kme_is_strict(pair: Pair) -> None:
    """The KME's certificate passes strict checks (RFC 5280: key usage, basic constraints, key identifiers)."""
    for sae in pair.both:
        context = sae.context(sae.certificate)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        with _handshake(sae, context):
            pass


@_claims("4, 5.1", Level.REQUIRED)
def tls_is_1_2_or_later(pair: Pair) -> None:
    """TLS is of version 1.2 or 1.3."""
    for sae in pair.both:
        with _handshake(sae, sae.context(sae.certificate)) as connection:
            expect(connection.version() in ("TLSv1.2", "TLSv1.3"), f"{sae.url}: {connection.version()}")


@_claims("2, 5.1", Level.ADVISED)
def tls_1_2_is_served(pair: Pair) -> None:
    """A client that speaks TLS 1.2 alone is served."""
    _only(pair, ssl.TLSVersion.TLSv1_2)


@_claims("2, 5.1", Level.ADVISED)
def tls_1_3_is_served(pair: Pair) -> None:
    """A client that speaks TLS 1.3 alone is served."""
    _only(pair, ssl.TLSVersion.TLSv1_3)


@_claims("4, 5.1", Level.REQUIRED)
def tls_1_1_is_refused(pair: Pair) -> None:
    """A client that speaks TLS 1.1 alone is refused."""
    for sae in pair.both:
        try:
            context = only_tls_1_1(sae.context(sae.certificate))
            with sae.connected(context) as connection:
                raise Failed(f"{sae.url}: {connection.version()} is served")
        except ssl.SSLError as error:
            if error.reason in _OWN_REFUSAL:
                raise NotRun("the OpenSSL of this machine does not speak TLS 1.1") from None
        except OSError:
            pass  # the connection was closed: refused


@_claims("4, 5.1", Level.REQUIRED)
def plain_http_is_not_served(pair: Pair) -> None:
    """A request without TLS is not answered with a Status."""
    for sae in pair.both:
        plain = http.client.HTTPConnection(sae.host, sae.port, timeout=_PLAIN_S)
        try:
            plain.request("GET", f"/api/v1/keys/{pair.peer(sae).id}/status")
            status = plain.getresponse().status
        except (OSError, http.client.HTTPException):
            continue
        finally:
            plain.close()
        expect(status != 200, f"{sae.url}: status 200 over plain HTTP")


@_claims("4, 5.1", Level.REQUIRED)
def client_without_a_certificate_gets_nothing(pair: Pair) -> None:
    """A client without a certificate is not answered with a Status."""
    for sae in pair.both:
        expect(not _asked(sae, pair.peer(sae), None).startswith(_OK), f"{sae.url}: status 200")


@_claims("5.1", Level.ADVISED)
def client_without_a_certificate_is_refused_at_set_up(pair: Pair) -> None:
    """A client without a certificate is refused at connection set-up, before any HTTP."""
    for sae in pair.both:
        expect(not _asked(sae, pair.peer(sae), None), f"{sae.url}: it is answered by HTTP")


@_claims("4, 5.1", Level.REQUIRED)
def certificate_of_another_ca_gets_nothing(pair: Pair) -> None:
    """A client whose certificate no CA of the KME has signed gets nothing, though it names a known SAE."""
    for sae in pair.both:
        with _forged(sae) as forged:
            expect(not _asked(sae, pair.peer(sae), forged).startswith(_OK), f"{sae.url}: status 200")


@_claims("5.1", Level.ADVISED)
def certificate_of_another_ca_is_refused_at_set_up(pair: Pair) -> None:
    """A client whose certificate no CA of the KME has signed is refused at connection set-up."""
    for sae in pair.both:
        with _forged(sae) as forged:
            expect(not _asked(sae, pair.peer(sae), forged), f"{sae.url}: it is answered by HTTP")


@_claims("4", Level.ADVISED)
def kme_id_stands_in_the_certificate(pair: Pair) -> None:
    """An SAE can read the KME's ID, source_KME_ID of its Status, in the KME's certificate."""
    for sae in pair.both:
        said = sae.status(pair.peer(sae).id).document.get("source_KME_ID")
        with _handshake(sae, sae.context(sae.certificate)) as connection:
            names = _names(x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b""))
        expect(any(str(said) in name for name in names), f"{sae.url}: {said} is not among {', '.join(names)}")


@_claims("5.1", Level.REQUIRED)
def answers_are_application_json(pair: Pair) -> None:
    """Answers with a body are of content type application/json."""
    given = pair.get()
    answers = [sae.status(pair.peer(sae).id) for sae in pair.both]
    answers += [given.slave.fetch(given.master.id, key_ids(*given.ids)), pair.patiently(lambda: pair.a.get(pair.b.id))]
    for answer in answers:
        found = answer.headers.get_content_type()
        expect(found == "application/json", f"{found} (status {answer.status})")


@_claims("5.1 (RFC 9112, 9.3)", Level.ADVISED)
def connection_may_be_kept(pair: Pair) -> None:
    """Two requests may follow each other over one connection."""
    _over_one(pair, [pair.b.id, pair.b.id])


@_claims("5.1 (RFC 9112, 9.3)", Level.ADVISED)
def connection_outlives_a_refusal(pair: Pair) -> None:
    """A request that is refused does not end the connection."""
    _over_one(pair, ["no-such-SAE", pair.b.id])


@_claims("5.1", Level.ADVISED)
def content_type_may_have_parameters(pair: Pair) -> None:
    """A POST of `application/json; charset=utf-8` is understood."""
    fields = {"Content-Type": "application/json; charset=utf-8"}
    answer = pair.patiently(lambda: pair.a.post(pair.b.id, {"size": pair.size}, headers=fields))
    container(answer, number=1, size=pair.size)


@_claims("5.1 (RFC 9112, 7.1)", Level.ADVISED)
def chunked_body_is_read(pair: Pair) -> None:
    """A POST whose body comes in chunks is understood."""
    answer = pair.patiently(lambda: pair.a.post(pair.b.id, {"size": pair.size}, chunked=True))
    container(answer, number=1, size=pair.size)


def _over_one(pair: Pair, slaves: list[str]) -> None:
    connection = pair.a.dial()
    try:
        for slave in slaves:
            pair.a.call("GET", f"/api/v1/keys/{slave}/status", over=connection)
            expect(connection.sock is not None, "the KME closes the connection")
    finally:
        connection.close()


@contextlib.contextmanager
def _handshake(sae: Sae, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    try:
        with sae.connected(context) as connection:
            yield connection
    except OSError as error:
        raise Failed(f"{sae.url}: {reason(error)}") from None


def _only(pair: Pair, version: ssl.TLSVersion) -> None:
    for sae in pair.both:
        context = sae.context(sae.certificate)
        context.minimum_version = context.maximum_version = version
        with _handshake(sae, context):
            pass


def _asked(sae: Sae, slave: Sae, certificate: Certificate | None) -> bytes:
    """The first line that a KME answers to a client with that certificate; b"" if it answers nothing by HTTP.

    In TLS 1.3 a client learns only when it reads that it was refused.
    """
    try:
        with sae.connected(sae.context(certificate)) as connection:
            connection.sendall(sae.request_text(slave.id))
            return connection.recv(64).partition(b"\r\n")[0]
    except OSError:
        return b""


@contextlib.contextmanager
def _forged(sae: Sae) -> Iterator[Certificate]:
    """A certificate that says what the SAE's says, and that nobody but its own key has signed."""
    old = x509.load_pem_x509_certificate(sae.certificate.certificate.read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(
        old.subject, old.subject, key.public_key(), x509.random_serial_number(), now - datetime.timedelta(hours=1),
        now + datetime.timedelta(hours=1),
    )  # fmt: skip
    with contextlib.suppress(x509.ExtensionNotFound):
        names = old.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        builder = builder.add_extension(names.value, critical=names.critical)
    with tempfile.TemporaryDirectory() as folder:
        forged = Certificate(Path(folder) / "forged.pem", Path(folder) / "forged.key")
        forged.certificate.write_bytes(builder.sign(key, SHA256()).public_bytes(Encoding.PEM))
        forged.key.touch(mode=0o600)
        forged.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        yield forged


def _names(certificate: x509.Certificate) -> list[str]:
    """All names in a certificate: of its subject, and alternative ones."""
    found = [str(attribute.value) for attribute in certificate.subject]
    with contextlib.suppress(x509.ExtensionNotFound):
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found += [str(name.value) for name in names]
    return found
