"""`calls.py RUN METHOD URL ROLE:NAME(caller) ROLE:NAME(server) BODY ...`: calls made where this runs, answers as JSON.

The tests start it on a host of the emulated network, with the certificates of the run.
"""

import json
import sys
from pathlib import Path

from cryptography import x509

from mtls.call import Caller
from mtls.credentials import Credentials
from mtls.identity import Identity, Role


def identity(text: str) -> Identity:
    """ROLE:NAME"""
    role, _, name = text.partition(":")
    return Identity(Role(role), name)


def credentials(pki: Path, who: Identity) -> Credentials:
    """Those that the run issued: an SAE's files are named as people call it, while its certificate says the ID."""
    stems = [pki / f"{who.role}-{who.name}", *(path.with_suffix("") for path in pki.glob(f"{who.role}-*.pem"))]
    stem = next(s for s in stems if s.with_suffix(".pem").exists() and states(s.with_suffix(".pem"), who))
    return Credentials(stem.with_suffix(".pem"), stem.with_suffix(".key"), pki / "ca.pem")


def states(certificate: Path, who: Identity) -> bool:
    """Whether it is a certificate for `who`."""
    names = x509.load_pem_x509_certificate(certificate.read_bytes()).extensions
    alternatives = names.get_extension_for_class(x509.SubjectAlternativeName).value
    return who.uri in alternatives.get_values_for_type(x509.UniformResourceIdentifier)


run, *rest = sys.argv[1:]
answers = []
for i in range(0, len(rest), 5):
    method, url, caller, server, body = rest[i : i + 5]
    reply = Caller(credentials(Path(run) / "pki", identity(caller))).request(
        method, url, to=identity(server), body=json.loads(body), timeout_s=30
    )
    answers.append({"status": reply.status, "body": reply.body})
print(json.dumps(answers))
