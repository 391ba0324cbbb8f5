"""Whether a key session may start on a path: policies as a table. PURE.

A policy sees the path's QCs as measured, and the declared QoS. It answers None to admit, or what was short where.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from etsi.gs004 import QoS


@dataclass(frozen=True, slots=True)
class QcView:
    """A QC as measured over the last slots: bytes generated and requested in `slots` slots, bytes stored now."""

    qc: str
    generated_bytes: int
    requested_bytes: int
    stored_bytes: int
    slots: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The QC that was short, the bytes that the session needs there and the bytes that there are."""

    qc: str
    needed_bytes: int
    available_bytes: int


# What a mode takes of a key's size on the first link of a path and on every other; a node declares the same.
MODES: Mapping[str, tuple[int, int]] = {"basic": (2, 1)}

AdmissionPolicy = Callable[[Sequence[QcView], QoS], Refused | None]


def admit_all(path: Sequence[QcView], qos: QoS) -> Refused | None:
    """No admission control: what the network cannot carry shows later, as key errors of running sessions."""
    del path, qos
    return None


ADMISSION_POLICIES: Mapping[str, AdmissionPolicy] = {"none": admit_all}
