"""What the two ends of each QC agree on: this end says its part to the shared database, and gives up what differs."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from decisions.ranges import Claim
from node.material.key_store import KeyStore
from node.material.shared_db import SharedDatabase
from telemetry.journal import Journal

_log = logging.getLogger(__name__)


class Agreement:
    """Of `qcs`, which are held in `store`."""

    def __init__(self, qcs: Sequence[str], store: KeyStore, shared: SharedDatabase, journal: Journal) -> None:
        self._qcs = qcs
        self._store = store
        self._shared = shared
        self._journal = journal
        self._known: dict[str, tuple[int, int]] = {}  # by QC: epoch, and up to where the shared database knows

    def report(self) -> None:
        """Say what this end holds; KeyFailure. A database that has forgotten something is told that again."""
        if self._report_once():
            self._report_once()

    def _report_once(self) -> bool:
        """Whether the database lacks what was not said."""
        claims = self._store.claims(self._known)
        held = {claim.qc for claim in claims}
        claims += [Claim(qc, epoch=0, floor=0) for qc in self._qcs if qc not in held]  # nothing has come of it yet
        begun = time.time()
        answers = self._shared.report(claims, self._store.number_report())
        at = round((begun + time.time()) / 2, 6)  # of its way there and back
        self._journal.event("reported", at=at, known={qc: answer.known for qc, answer in answers.items()})
        for claim in claims:
            if claim.qc not in answers:
                continue
            self._known[claim.qc] = claim.epoch, answers[claim.qc].known
            for r in answers[claim.qc].differing:
                if self._store.discard(r):
                    _log.warning("QC %s: bytes %d to %d are others at the other end: erased", r.qc, r.start, r.end)
                    self._journal.event("block_differs", qc=r.qc, epoch=r.epoch, start=r.start, end=r.end)
        return any(claim.qc in answers and answers[claim.qc].known < claim.after for claim in claims)
