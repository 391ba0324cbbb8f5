"""`python -m testbed.audit [RUN]`: prints the verdict on a run, the latest one by default."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from testbed.audit.evidence import Unreadable
from testbed.audit.verdict import SHOWN, load
from testbed.machine import output

_LATEST = Path(__file__).resolve().parents[2] / "runs" / "latest"


def main(run: Path) -> int:
    """Print the verdict; exit status 0 if it is clean, 1 if it is not or if there is none."""
    try:
        verdict = load(run)
    except Unreadable as error:
        print(f"audit: not possible: {error}", file=sys.stderr)
        return 1
    print(f"run {run.resolve()}")
    for name, number in verdict.counted.items():
        print(f"{name.replace('_', ' '):16} {number}")
    for qc, n_bytes in verdict.lost_bytes.items():
        print(f"{'bytes lost':16} {n_bytes} on {qc}")
    for finding in verdict.findings[:SHOWN]:
        print(f"VIOLATION  {finding}")
    print("verdict: clean" if not verdict.findings else f"verdict: {len(verdict.findings)} violations")
    return 0 if not verdict.findings else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m testbed.audit",
        description="Whether the records of a run agree: what QCs made, what was allocated, taken and handed out.",
    )
    parser.add_argument(
        "run", metavar="RUN", nargs="?", type=Path, default=_LATEST,
        help="directory of a run that is over; default: runs/latest",
    )  # fmt: skip
    given = parser.parse_args()
    sys.exit(output.run(lambda: main(given.run)))
