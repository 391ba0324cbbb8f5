"""Bugs of our own, which are loud: where one struck stands in the log, and a thread that must live ends the process.

The log has the type and the place only, not the text: an exception's text may quote the data it was raised about.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import traceback
from collections.abc import Callable
from typing import Any

MARK = "a bug of ours"  # in each line of a log that tells of one
STATUS = 70  # of a process that ends by one; EX_SOFTWARE of sysexits.h


def report(log: logging.Logger, what: str, error: object) -> None:
    """Log that `what` met a bug, with the exception's type and the places that it went through."""
    places = "".join(traceback.format_tb(getattr(error, "__traceback__", None)))
    log.error("%s: %s, %s\n%s", what, MARK, type(error).__name__, places.rstrip())


def vital_thread(target: Callable[..., object], *args: Any, name: str) -> threading.Thread:
    """A daemon thread, not started yet, without which this process is of no use: an exception there ends the process.

    What is transient (a full disk, a peer that is away) is for `target` to survive.
    """
    return threading.Thread(target=functools.partial(_run_or_die, target, args, name), name=name, daemon=True)


def _run_or_die(target: Callable[..., object], args: tuple[Any, ...], name: str) -> None:
    try:
        target(*args)
    except Exception as error:
        report(logging.getLogger(__name__), f"thread {name}", error)
        logging.shutdown()
        os._exit(STATUS)
