"""Programs that end in order when their reader has seen enough, as `| head` has, or their user, who types Ctrl-C."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from typing import TextIO

INTERRUPTED = 130  # as a shell would report it


class _Output(io.TextIOWrapper):
    """Writes to a descriptor. Once nobody reads it, what is written is thrown away, and the process is hung up."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            self._hang_up()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            self._hang_up()

    def _hang_up(self) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)
        if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGPIPE)
        else:
            # As if the terminal were gone: the main thread ends in order, whichever thread was writing.
            os.kill(os.getpid(), signal.SIGHUP)


def run(main: Callable[[], int]) -> int:
    """The exit status of the program that `main` is. Ctrl-C and closed pipes end it without a traceback."""
    _survive_closed_pipes()
    try:
        return main()
    except KeyboardInterrupt:
        return INTERRUPTED


def _survive_closed_pipes() -> None:
    """Have a closed standard output or error end the process: in order if it handles SIGHUP, else by SIGPIPE."""
    sys.stdout, sys.stderr = _outlive(sys.stdout), _outlive(sys.stderr)


def _outlive(stream: TextIO) -> TextIO:
    raw = os.fdopen(stream.fileno(), "wb", buffering=0 if stream is sys.stderr else -1, closefd=False)
    # Names of files may hold bytes that are no text.
    return _Output(raw, encoding=stream.encoding, errors="backslashreplace", line_buffering=True)
