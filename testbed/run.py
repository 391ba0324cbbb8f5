"""`sudo python testbed/run.py`: sets up what is missing, then runs the testbed with the Python that has everything.

Nothing else happens here. Python has put this folder first on its path, where `import node` would fail and a file
named like a standard module would take its place; so the testbed itself starts afresh, as `python -m testbed`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv" / "bin" / "python"


def main() -> int:
    """Set up, then become the testbed; an exit status if that is not possible."""
    if os.geteuid() == 0:
        status = subprocess.call([ROOT / "vagrant" / "provision.sh"])
        if status != 0:
            return status
    elif not PYTHON.exists():
        print("run.py: needs root, and nothing is set up yet: sudo python testbed/run.py", file=sys.stderr)
        return 2
    # -P keeps the current directory off the path: whatever lies there is none of ours.
    command = [str(PYTHON), "-P", "-m", "testbed", *sys.argv[1:]]
    return os.execv(PYTHON, command)  # noqa: S606 - no shell on purpose; never returns


if __name__ == "__main__":
    sys.exit(main())
