"""`make results`: figures and tables of the experiments in results/ go to docs/results/, whose pages are made anew."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from testbed.experiments import report
from testbed.experiments.command import EXPERIMENTS

_ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """The exit status."""
    argparse.ArgumentParser(prog="python -m testbed.experiments.publish", description=__doc__).parse_args()
    print(report.publish(_ROOT / "results", list(EXPERIMENTS), _ROOT / "docs" / "results"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
