"""Looks for key material in what was recorded of a network."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterable, Mapping
from pathlib import Path

from telemetry import journal

_PIECE = 12  # bytes: four times three, so that base64 of a whole secret is that of its pieces, one after the other


def shown(seen: bytes, secrets: Iterable[bytes]) -> list[bytes]:
    """Pieces of 12 bytes of the secrets that show in `seen`: raw, in hex, or in base64."""
    pieces = [secret[i : i + _PIECE] for secret in secrets for i in range(0, len(secret) - _PIECE + 1, _PIECE)]
    forms = {
        12: set(pieces),
        24: {form for p in pieces for form in (p.hex().encode(), p.hex().upper().encode())},
        16: {base64.b64encode(p) for p in pieces},
    }
    return [w for n, known in forms.items() for i in range(len(seen)) if (w := seen[i : i + n]) in known]


def made_by_seed(book: Path, seed: int, rates: Mapping[str, tuple[int, int]]) -> list[bytes]:
    """All blocks that these QCs made by a seed, drawn anew, one QC after the other. Rates: lowest and highest, bytes a
    slot. AssertionError if their emulator journalled other sizes. `test_qc_emulator` holds this to a real emulator.
    """
    blocks = journal.read(book, "block")
    found = []
    for qc, (low, high) in rates.items():
        sizes, data = random.Random(f"{seed}/{qc}"), random.Random(f"{seed}/{qc}/key")
        for event in (e for e in blocks if e["qc"] == qc):
            assert low + int(sizes.random() * (high - low + 1)) == event["n_bytes"]
            found.append(data.randbytes(event["n_bytes"]))
    return found
