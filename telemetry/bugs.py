"""Bugs of our own, which are loud: where one struck stands in the log, and a thread that must live ends the process.

The log has the type and the place only, not the text: an exception's text may quote the data it was raised about.
What the machine refuses for a while, such as room on a full disk, is no bug, and is called by its name.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sqlite3
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from telemetry.journal import Journal

MARK = "a bug of ours"  # in each line of a log that tells of one
STATUS = 70  # of a process that ends by one; EX_SOFTWARE of sysexits.h
EVENT, REFUSED = "bug", "machine_refused"  # in journals
_SCARCE = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO)
_NO_THREAD = "can't start new thread"  # in Python's words, by which alone it is known
_SCARCE_TO_SQLITE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_CANTOPEN)


class Away(Exception):
    """What a process needs is away for a while, which is no bug: one line that says what."""


def report(log: logging.Logger, what: str, error: object, journal: Journal | None = None, **facts: Any) -> None:
    """Log that `what` met a bug, with the exception's type and the places that it went through. Never raises.

    The same of what the exception was raised from. `journal` gets an event with `facts`.
    """
    scarce, kind = refused(error), type(error).__name__
    if scarce is None:
        log.error("%s: %s, %s\n%s", what, MARK, kind, "\n".join(map(_place, _chain(error))))
    else:
        log.error("%s: the machine refuses: %s", what, scarce)
    if journal is not None:
        # It may be that nothing can be written; the log has it.
        with contextlib.suppress(OSError):
            journal.event(EVENT if scarce is None else REFUSED, what=what, error=scarce or kind, **facts)


def refused(error: object) -> str | None:
    """What the machine refuses, in its own words, if that is what was raised; None if it may be a bug of ours. PURE."""
    if isinstance(error, Away):
        return str(error)
    if isinstance(error, OSError) and error.errno in _SCARCE:
        return os.strerror(error.errno)
    # The last 8 bits are the error, those above tell of which kind.
    if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _SCARCE_TO_SQLITE:
        return "the local database cannot be written"
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        return "no thread can be started"
    return None


def _chain(error: object) -> Iterator[BaseException]:
    """What was raised, then what it was raised from, and so on."""
    seen: list[BaseException] = []
    while isinstance(error, BaseException) and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _place(error: BaseException) -> str:
    return f"{type(error).__name__} at\n{''.join(traceback.format_tb(error.__traceback__)).rstrip()}"


def exit_with(what: str, body: Callable[[], int]) -> NoReturn:
    """End the process with the status that `body` returns, whatever threads it leaves behind.

    What `body` raises is told as a bug or, with status 1, as what the machine refuses for a while.
    """
    try:
        status = body()
    except Exception as error:
        report(logging.getLogger(__name__), what, error)
        status = STATUS if refused(error) is None else 1
    with contextlib.suppress(OSError, ValueError):  # nobody may be there to read
        sys.stdout.flush()
        sys.stderr.flush()
    # Threads that are no daemons, as of a framework, would keep an ordinary exit waiting for ever.
    os._exit(status)


def vital_thread(
    target: Callable[..., object], *args: Any, name: str, stopped: Callable[[], bool] = lambda: False
) -> threading.Thread:
    """A daemon thread, not started yet, without which this process is of no use: it ends the process when it ends.

    Whatever is raised, and a return, too, unless by then `stopped()` says that the thread was to end. What is transient
    (a full disk, a peer that is away) is for `target` to survive.
    """
    return threading.Thread(target=_run_vital, args=(target, args, name, stopped), name=name, daemon=True)


def watched_thread(
    target: Callable[..., object], *args: Any, name: str, stopped: Callable[[], bool] = lambda: False
) -> threading.Thread:
    """The same of a process that has more to do than this thread does: its end is in the log, and all else goes on."""
    return threading.Thread(target=_run_watched, args=(target, args, name, stopped), name=name, daemon=True)


def _run_vital(*what: Any) -> None:
    if not _run_watched(*what):
        logging.shutdown()
        os._exit(STATUS)


def _run_watched(
    target: Callable[..., object], args: tuple[Any, ...], name: str, stopped: Callable[[], bool]
) -> bool:
    """Whether the thread has ended as it was to."""
    log = logging.getLogger(__name__)
    try:
        target(*args)
        if stopped():
            return True
        log.error("thread %s: %s: it has ended, and nobody had stopped it", name, MARK)
    except BaseException as error:  # threads end in silence by SystemExit
        report(log, f"thread {name}", error)
    return False
