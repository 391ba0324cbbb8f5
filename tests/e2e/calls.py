"""`calls.py RUN METHOD URL ROLE:NAME(caller) ROLE:NAME(server) BODY ...`: calls made where this runs, answers as JSON.

The tests start it on a host of the emulated network, with the certificates of the run.
"""

import json
import sys
from pathlib import Path

from mtls.call import Caller
from mtls.credentials import Credentials
from mtls.identity import Identity, Role


def identity(text: str) -> Identity:
    """ROLE:NAME"""
    role, _, name = text.partition(":")
    return Identity(Role(role), name)


def credentials(pki: Path, who: Identity) -> Credentials:
    """Those that the run issued."""
    stem = pki / f"{who.role}-{who.name}"
    return Credentials(stem.with_suffix(".pem"), stem.with_suffix(".key"), pki / "ca.pem")


run, *rest = sys.argv[1:]
answers = []
for i in range(0, len(rest), 5):
    method, url, caller, server, body = rest[i : i + 5]
    reply = Caller(credentials(Path(run) / "pki", identity(caller))).request(
        method, url, to=identity(server), body=json.loads(body)
    )
    answers.append({"status": reply.status, "body": reply.body})
print(json.dumps(answers))
