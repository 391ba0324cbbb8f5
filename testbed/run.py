"""`sudo python testbed/run.py`: sets up what is missing, then runs the testbed with the Python that has everything.

Nothing else happens here. Python has put this folder first on its path, where `import node` would fail and a file
named like a standard module would take its place; so the testbed itself starts afresh, as `python -m testbed`.
"""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    """Set up, then become the testbed; an exit status if that is not possible."""
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # Ctrl-C shows no traceback
    import subprocess  # from here on: loading takes a while
    from pathlib import Path

    root = Path(__file__).resolve().parent.parent
    python = root / ".venv" / "bin" / "python"
    if os.geteuid() == 0:
        status = subprocess.call([root / "vagrant" / "provision.sh"])
        if status != 0:
            return status
    elif not python.exists():
        print("run.py: needs root, and nothing is set up yet: sudo python testbed/run.py", file=sys.stderr)
        return 2
    # -P keeps the current directory off the path: whatever lies there is none of ours.
    command = [str(python), "-P", "-m", "testbed", *sys.argv[1:]]
    # Until the testbed has a handler of its own, which then unblocks it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    return os.execv(python, command)  # noqa: S606 - no shell on purpose; never returns


if __name__ == "__main__":
    sys.exit(main())
