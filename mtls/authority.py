"""The run's certificate authority: one self-signed CA, one certificate a party, private keys with mode 0600.

ECDSA on P-256: every TLS library in the field has it, and a handshake costs a tenth of RSA's. Certificates follow
RFC 5280 to the letter (key identifiers, key usage, basic constraints), because strict clients refuse others.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mtls.credentials import Credentials
from mtls.identity import Identity, Role

# A run lasts hours at most; an hour of the past covers clocks that differ.
_VALID = datetime.timedelta(days=30)
_LONGEST_COMMON_NAME = 64  # bytes, by X.520
_SKEW = datetime.timedelta(hours=1)
_CALLED_BY_STRANGERS = (Role.NODE, Role.CONTROLLER)


class Authority:
    """A CA in memory that writes certificates into `directory`.

    Every user of the machine may open a certificate whose name he knows, the CA's first of all; keys have mode 0600.
    """

    def __init__(self, directory: Path, *, name: str = "QKD testbed") -> None:
        self._directory = directory
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        directory.chmod(0o711)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} CA")])
        self._certificate = self._self_signed()
        self.ca = directory / "ca.pem"
        self.ca_key = directory / "ca.key"
        _write(self.ca, self._certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        _write(self.ca_key, _pem(self._key), 0o600)

    def issue(
        self,
        identity: Identity,
        *,
        addresses: Iterable[str] = (),
        valid: datetime.timedelta = _VALID,
        stem: str | None = None,
    ) -> Credentials:
        """Certificate and key for `identity`, also valid for the IP `addresses`; files are named `stem`.

        That of a server which others call at the loopback address is valid for localhost, too.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(identity.uri), x509.DNSName(identity.dns)]
        ips = [ipaddress.ip_address(address) for address in addresses]
        names += [x509.IPAddress(ip) for ip in ips]
        if identity.role in _CALLED_BY_STRANGERS and any(ip.is_loopback for ip in ips):
            names.append(x509.DNSName("localhost"))
        # GS QKD 014 leaves open where an ID stands; foreign clients look at the common name, we at the URI, and
        # PostgreSQL, which knows no URIs, at the whole subject.
        attributes = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, identity.role)]
        if len(identity.name.encode()) <= _LONGEST_COMMON_NAME:
            attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, identity.name))
        subject = x509.Name(attributes)
        usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            self._builder(subject, key.public_key(), valid)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
            .add_extension(_key_usage(sign_certificates=False), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        stem = stem or f"{identity.role}-{identity.label}"
        credentials = Credentials(self._directory / f"{stem}.pem", self._directory / f"{stem}.key", self.ca)
        _write(credentials.certificate, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        _write(credentials.key, _pem(key), 0o600)
        return credentials

    def _self_signed(self) -> x509.Certificate:
        return (
            self._builder(self._name, self._key.public_key(), _VALID)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(sign_certificates=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def _builder(
        self, subject: x509.Name, public: ec.EllipticCurvePublicKey, valid: datetime.timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now, now + valid) - _SKEW)
            .not_valid_after(now + valid)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write with `mode` from the first byte on: a key is never world-readable, not even for a moment."""
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
