"""PURE: how a node knows, without asking, that the shared database has allocated ranges for a request.

The database shares a secret with every node. With the ranges of a path it gives the first node a MAC for each later
one, over the ranges of the links on both sides of that node. A relay can neither take ranges that were allocated for
something else nor ranges of nobody: keys over one hop have no such proof, so that none becomes a pad.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from decisions.ranges import Range

PROOF_LENGTH = 64  # hexadecimal digits


def proof(
    secret: bytes, request: str, server: str, *, position: int, hops: int, around: Sequence[Range]
) -> str:
    """HMAC-SHA256, in hexadecimal digits, for the node behind link `position`, from 1 on, of a path of `hops` links.

    `around`: the range of that link and, unless it is the last one, of the next. The same words as in shared_db.sql.
    """
    words = [request, server, str(position), str(hops)]
    for where in around:
        qc = where.qc
        words += [str(where.epoch), str(where.start), str(where.end), str(len(qc.encode())), qc]
    return hmac.digest(secret, " ".join(words).encode(), "sha256").hex()

