"""The keys that the two ends of each QC share from the start, as QKD devices do, to compare what they hold."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from node.material.blocks import AUTHENTICATION_KEY_BYTES


def qc_key(directory: Path, interface: int) -> Path:
    """Where the key of a node's QC lies: in the node's folder, by the number of its interface there, from 1 on."""
    return directory / f"qc{interface}.key"


def share_qc_key(ends: Sequence[Path]) -> None:
    """Put a new key into the files `ends` (mode 0600), unless they have one."""
    if all(path.exists() for path in ends):
        return
    key = secrets.token_bytes(AUTHENTICATION_KEY_BYTES)
    for path in ends:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(key)
