"""`run.py conformance URL_A URL_B ...`: options, checks, report, exit status."""

from __future__ import annotations

import argparse
import json
import ssl
import sys
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.x509.oid import NameOID

from conformance import callers, errors, get_key, get_key_with_ids, report, status, transport
from conformance.checks import Chapter, Finding, find_out
from conformance.client import Certificate, NoAnswer, Sae
from conformance.pair import Pair

CHAPTERS = (
    transport.CHAPTER, status.CHAPTER, get_key.CHAPTER, get_key_with_ids.CHAPTER, callers.CHAPTER, errors.CHAPTER
)  # fmt: skip
_PATIENCE_S, _TIMEOUT_S = 60.0, 30.0
_LONGEST_S = 3600.0


class _Wrong(Exception):
    """An option is not as it should be; one line that names it and what is expected."""


def main(arguments: list[str]) -> int:
    """Check a pair of KMEs as `arguments` say.

    Exit status 0: no required claim was found not to hold; 1: one was; 2: it could not be looked at.
    """
    given = _parser().parse_args(arguments)
    try:
        pair = _pair(given)
        for sae in pair.both:
            sae.status(pair.peer(sae).id)
    except (_Wrong, NoAnswer) as error:
        print(f"run.py conformance: {error}", file=sys.stderr)
        return 2
    findings: list[tuple[Chapter, Finding]] = []
    out = sys.stderr if given.json else sys.stdout
    for chapter in CHAPTERS:
        print(chapter.title, file=out, flush=True)
        for check in chapter.checks:
            findings.append((chapter, find_out(check, pair)))
            print(report.line(findings[-1][1]), file=out, flush=True)
    print(report.count(finding for _, finding in findings), file=out, flush=True)
    if given.json:
        print(json.dumps(report.document(pair, findings), indent=1))
    return 0 if report.conforms(finding for _, finding in findings) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run.py conformance",
        description=f"Checks of {report.STANDARD} against two KMEs, whoever made them: A is master, B is slave, and the"
        " other way round. They use up some hundred small keys. Needs no root.",
        epilog="Exit status 0: every required claim holds, or could not be looked at; 1: one does not hold;"
        " 2: a KME cannot be reached, or an option is wrong. See docs/conformance.md.",
    )
    add = parser.add_argument
    add("url_a", metavar="URL_A", help="the KME of SAE A: https://HOST[:PORT]")
    add("url_b", metavar="URL_B", help="the KME of SAE B")
    add("--ca", required=True, type=Path, metavar="FILE", help="certificate of the CA that has signed the KMEs', PEM")
    for who in "ab":
        add(f"--{who}", required=True, nargs=2, type=Path, metavar=("CERT", "KEY"), help=f"certificate and private key of SAE {who.upper()}, PEM")  # fmt: skip  # noqa: E501
    add("--other", nargs=2, type=Path, metavar=("CERT", "KEY"), help="of a third SAE, to see it refused keys that are not its own")  # fmt: skip  # noqa: E501
    for who in "ab":
        add(f"--id-{who}", metavar="ID", help=f"SAE ID of {who.upper()} (default: the common name in its certificate)")
    add("--any-name", action="store_true", help="go on though a KME's certificate is made out for another host (that check fails)")  # fmt: skip  # noqa: E501
    add("--patience", type=float, default=_PATIENCE_S, metavar="S", help=f"wait so long for key material (default: {_PATIENCE_S:g} s)")  # fmt: skip  # noqa: E501
    add("--json", action="store_true", help="print a JSON document; what is shown meanwhile goes to standard error")
    return parser


def _pair(given: argparse.Namespace) -> Pair:
    if not 0 <= given.patience <= _LONGEST_S:
        raise _Wrong(f"--patience: expected 0 to {_LONGEST_S:g} seconds, not {given.patience:g}")
    a = _sae(given, "URL_A", given.url_a, option="--a", paths=given.a, sae_id=given.id_a)
    b = _sae(given, "URL_B", given.url_b, option="--b", paths=given.b, sae_id=given.id_b)
    if a.id == b.id:
        raise _Wrong(f"--a and --b: expected two SAEs, and both are {a.id}")
    other = None
    if given.other is not None:
        other = _sae(given, "URL_B", given.url_b, option="--other", paths=given.other)
    if other is not None and other.id in (a.id, b.id):
        raise _Wrong(f"--other: expected a third SAE, not {other.id}")
    return Pair(a, b, other, patience_s=given.patience)


def _sae(
    given: argparse.Namespace, url_name: str, url: str, *, option: str, paths: list[Path], sae_id: str | None = None
) -> Sae:  # fmt: skip
    try:
        parts = urlsplit(url)
        usable = parts.scheme == "https" and parts.hostname and parts.port != 0 and not parts.query
    except ValueError:  # the port is no number
        usable = False
    if not usable:
        raise _Wrong(f"{url_name}: expected https://HOST[:PORT], not {url}")
    certificate = Certificate(*paths)
    for name, path in (("--ca", given.ca), (option, certificate.certificate), (option, certificate.key)):
        try:
            path.read_bytes()
        except OSError as error:
            raise _Wrong(f"{name}: {path}: {error.strerror}") from None
    sae_id = sae_id or _common_name(option, certificate.certificate)
    try:
        return Sae(sae_id, url, certificate, given.ca, any_name=given.any_name, timeout_s=_TIMEOUT_S)
    except ssl.SSLError:
        raise _Wrong(f"--ca, {option}: expected PEM certificates, and the key of the certificate") from None


def _common_name(option: str, path: Path) -> str:
    try:
        names = x509.load_pem_x509_certificate(path.read_bytes()).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError:
        raise _Wrong(f"{option}: {path}: expected a PEM certificate") from None
    if len(names) != 1:
        expected = f"expected one common name in {path}, and it has {len(names)}"
        raise _Wrong(f"{option}: {expected}" + ("" if option == "--other" else f"; say --id-{option[2:]} ID"))
    return str(names[0].value)
