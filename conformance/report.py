"""What the checks found, as text and as a document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from conformance.checks import Chapter, Finding, Outcome
from conformance.pair import Pair

STANDARD = "ETSI GS QKD 014 V1.1.1"
_ORDER = (Outcome.PASSED, Outcome.FAILED, Outcome.NOT_AS_ADVISED, Outcome.NOT_RUN)
_WIDTH = max(len(outcome.value) for outcome in Outcome)


def line(finding: Finding) -> str:
    """One finding."""
    claim = f"  {finding.outcome.value:<{_WIDTH}}  {finding.check.claim} ({finding.check.clauses})"
    return f"{claim}\n  {'':<{_WIDTH}}  -> {finding.says}" if finding.says else claim


def count(findings: Iterable[Finding]) -> str:
    """How many there are of each outcome."""
    found = Counter(finding.outcome for finding in findings)
    return f"{found.total()} checks: " + ", ".join(f"{found[o]} {o.value}" for o in _ORDER if found[o])


def conforms(findings: Iterable[Finding]) -> bool:
    """Whether no required claim was found not to hold."""
    return all(finding.outcome is not Outcome.FAILED for finding in findings)


def document(pair: Pair, findings: Sequence[tuple[Chapter, Finding]]) -> dict[str, Any]:
    """All of it as JSON."""
    return {
        "standard": STANDARD,
        "kmes": [{"url": sae.url, "sae": sae.id} for sae in pair.both],
        "conforms": conforms(finding for _, finding in findings),
        "counts": {o.value: sum(finding.outcome is o for _, finding in findings) for o in _ORDER},
        "checks": [
            {
                "chapter": chapter.title, "claim": finding.check.claim, "clauses": finding.check.clauses,
                "level": finding.check.level.value, "outcome": finding.outcome.value, "says": finding.says,
            }
            for chapter, finding in findings
        ],
    }  # fmt: skip
