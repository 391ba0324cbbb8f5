"""A run's own world: new network, mount, IPC and PID namespaces, and one process outside that waits for it.

Everything that a run makes lives in these namespaces, the switches too. The machine's own interfaces, routes, bridges
and processes are out of its sight, several runs do not meet, and however a run ends, by kill -9 too, the kernel takes
all its processes, links and namespaces down with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from telemetry import bugs
from testbed.errors import Terminated, UserError
from testbed.machine import namespaces

# How long an orderly end may take before the kernel ends it.
_GRACE_S = 30.0
_AGAIN_S = 0.02  # by then the place is left in which an exception was lost
_SI_KERNEL = 0x80
_WATCHED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD}


def run_isolated(body: Callable[[int], int], *, pid_file: Path, crash_log: Path) -> int:
    """The exit status of `body`, called as the first process of new namespaces.

    `body` gets a descriptor of the network namespace it came from. `pid_file` will hold the process ID that it has
    outside, for nsenter(1). A traceback goes to `crash_log`, not to the user.
    """
    outside = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    try:
        namespaces.unshare(namespaces.NEW_PID)  # takes effect for children only
    except OSError as error:
        raise UserError(f"the kernel gives no new namespaces ({error}): a container needs to be privileged") from None
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = _inside(body, outside, crash_log)
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)
    namespaces.children_here()
    pid_file.write_text(f"{child}\n")
    os.close(outside)
    try:
        return _wait(child)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _inside(body: Callable[[int], int], outside: int, crash_log: Path) -> int:
    try:
        namespaces.die_with_parent(signal.SIGKILL)
        namespaces.unshare(namespaces.NEW_NET | namespaces.NEW_MOUNT | namespaces.NEW_IPC)
        namespaces.private_mounts()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, _terminate)
        signal.signal(signal.SIGHUP, _terminate)
        sys.unraisablehook = _ask_again
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
        return body(outside)
    except KeyboardInterrupt:
        return 130
    except Terminated as error:
        return int(error.code or 0)
    except UserError as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        if scarce := bugs.refused(error):
            print(f"run.py: the machine refuses: {scarce}", file=sys.stderr)
            return 1
        try:
            crash_log.write_text(traceback.format_exc())
        except OSError:
            traceback.print_exc()
        print(f"run.py: internal error, a bug of ours; the traceback is in {crash_log}", file=sys.stderr)
        return 1


def _terminate(*_: object) -> None:
    raise Terminated


def _ask_again(lost: sys.UnraisableHookArgs) -> None:
    """Send a signal again whose exception was raised where Python lets none out, as in the end of an object's life."""
    number = {Terminated: signal.SIGTERM, KeyboardInterrupt: signal.SIGINT}.get(lost.exc_type)
    if number is None:
        sys.__unraisablehook__(lost)
        return
    again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """No signal interrupts what is inside: taking down is under way already."""
    before = {number: signal.signal(number, _ignore) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore(*_: object) -> None:
    """A handler, not SIG_IGN, which children would inherit."""


def _wait(child: int) -> int:
    """Pass signals on to `child` until it ends; its exit status, as a shell would report it."""
    deadline: float | None = None
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        found = signal.sigwaitinfo(_WATCHED) if left is None else signal.sigtimedwait(_WATCHED, left)
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        # Who slept beyond the deadline gets from Python 3.11 a signal that nobody sent.
        if found is None or (deadline is not None and time.monotonic() >= deadline):
            os.kill(child, signal.SIGKILL)
            deadline = None
        elif found.si_signo != signal.SIGCHLD:
            if found.si_code != _SI_KERNEL:  # a key pressed in the terminal has reached the child already
                os.kill(child, signal.SIGTERM if found.si_signo == signal.SIGHUP else found.si_signo)
            # In the CLI Ctrl-C ends a command, not the run.
            if found.si_signo in (signal.SIGTERM, signal.SIGHUP) and deadline is None:
                deadline = time.monotonic() + _GRACE_S
