"""`python testbed/run.py`, once the environment is there."""

from __future__ import annotations

import os
import signal
import sys

from testbed.machine import output


def main(arguments: list[str]) -> int:
    """Run the testbed as `arguments` say; the exit status."""
    before = signal.getsignal(signal.SIGINT)
    if before == signal.default_int_handler:
        # Its many modules take a second to load, in which Ctrl-C has nothing to clean up and no traceback to show.
        signal.signal(signal.SIGINT, lambda *_: os._exit(output.INTERRUPTED))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    from testbed import command

    signal.signal(signal.SIGINT, before)
    return command.main(arguments)


if __name__ == "__main__":
    sys.exit(output.run(lambda: main(sys.argv[1:])))
