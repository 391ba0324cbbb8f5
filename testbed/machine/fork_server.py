"""Components as forks of one process that has imported what they need.

A network of n datacenters has 2n and some Python processes. Each would import the same modules, which takes a second of
a processor and 70 MB of memory. Here one process imports them and does once what each component does first
(`testbed/machine/rehearsal.py`). Each component is a fork of it: it begins with the modules there, and shares their
memory with all others for as long as nobody changes it.

Theory of operation. `ForkServer` starts `python -m testbed.machine.fork_server`, or is a fork itself, and asks the
server over a pair of sockets. The server has one thread, as only that one would live on in a fork, and knows no secret:
a component reads its own configuration. It forks twice. The process between ends at once, so the kernel gives the
component a new parent: the next process above that said it would take such orphans (PR_SET_CHILD_SUBREAPER), which is
the one that asked. So who asked can wait for the component and send it signals as for any child of its own. The
component dies with that parent, leads a session of its own, has the two descriptors that came with the request as its
standard output and error, and enters the namespaces of a process that the request names. Then it calls `main` of its
module as `python -m` would.

When whoever asked is gone, the server reads the end of its socket and ends. Components do not depend on it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import setproctitle

from telemetry import bugs
from testbed.machine import namespaces

_REQUEST_BYTES, _DESCRIPTORS = 65_536, 2
_GONE_S = 0.0005
_M_ARENA_MAX, _ARENAS = -8, 2  # of malloc.h


class ForkFailed(Exception):
    """A component could not be forked; one line that says why."""


class Forked:
    """A component, as `subprocess.Popen` would show it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._lock = threading.Lock()  # a process can be waited for once
        self._status: int | None = None

    def poll(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        with self._lock:
            if self._status is None:
                done, status = os.waitpid(self.pid, os.WNOHANG)
                if done:
                    self._status = os.waitstatus_to_exitcode(status)
            return self._status

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, once it has ended; subprocess.TimeoutExpired after `timeout` seconds."""
        if (status := self.poll()) is not None:
            return status
        with contextlib.suppress(ProcessLookupError), io.FileIO(os.pidfd_open(self.pid)) as ended:
            poll = select.poll()
            poll.register(ended, select.POLLIN)
            poll.poll(None if timeout is None else 1000 * timeout)
        if (status := self.poll()) is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return status

    def send_signal(self, sig: int) -> None:
        """Send it a signal, if it still runs: nobody has waited for it then, so its number is its own."""
        with self._lock:
            if self._status is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, sig)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The process that has imported `modules`: each has `main`, of a path, or `rehearse`, done once. Thread-safe.

    `log`: what it writes itself, before and between forks. `forked`: it begins as a fork of this process, which has one
    thread, no secret yet, and has imported much of the same.
    """

    def __init__(self, modules: Sequence[str], log: Path, *, forked: bool = False) -> None:
        namespaces.take_orphans()
        self._lock = threading.Lock()
        self._log = log
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process: subprocess.Popen[bytes] | Forked
        with theirs, log.open("ab") as out:
            if forked:
                self._process = Forked(_fork_off(theirs.fileno(), out.fileno(), modules))
                return
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "testbed.machine.fork_server", str(theirs.fileno()), *modules],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip

    def start(self, name: str, module: str, config: Path, *, inside: int | None, out: int, err: int) -> Forked:
        """A process that runs `main` of `module` with `config`, in the namespaces of process `inside` if that is given.

        `module`: one of those that were imported. `name`: for `ps`. `out`, `err`: descriptors for its standard output
        and error. ForkFailed.
        """
        request = {"name": name, "module": module, "config": str(config), "inside": inside, "parent": os.getpid()}
        answer = b""
        with self._lock, contextlib.suppress(OSError):
            socket.send_fds(self._ours, [json.dumps(request).encode()], [out, err])
            answer = self._ours.recv(_REQUEST_BYTES)
        if not answer:
            raise ForkFailed(f"the process that forks components has ended; see {self._log}")
        found = json.loads(answer)
        if "pid" not in found:
            raise ForkFailed(f"{name} could not be forked: {found['error']}")
        return Forked(found["pid"])

    def close(self) -> None:
        """End it; components live on."""
        self._ours.close()
        self._process.wait()


def _fork_off(asked: int, out: int, modules: Sequence[str]) -> int:
    """The process ID of a server that is a fork of this process. It keeps no file and no signal handler of it."""
    assert threading.active_count() == 1, threading.enumerate()  # noqa: S101 - their locks would stay locked
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid != 0:
        return pid
    status = bugs.STATUS
    try:
        os.setsid()
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        sys.unraisablehook = sys.__unraisablehook__
        standard = (os.open(os.devnull, os.O_RDONLY), out, out)
        for descriptor, file in enumerate(standard):
            os.dup2(file, descriptor)
        os.closerange(len(standard), asked)
        os.closerange(asked + 1, os.sysconf("SC_OPEN_MAX"))
        setproctitle.setproctitle("fork-server: python -m testbed.machine.fork_server")
        status = main(asked, modules)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(status)


def main(descriptor: int, modules: Sequence[str]) -> int:
    """Import the modules, then fork until whoever asks is gone; the exit status."""
    if "MALLOC_ARENA_MAX" not in os.environ:
        # Components have some tens of threads, and on two cores malloc keeps up to sixteen arenas for them. What one
        # thread gave back in its arena the others do not get.
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)
    gc.disable()  # modules are loaded a tenth sooner, and leave next to no garbage
    for name in modules:
        module = importlib.import_module(name)
        if hasattr(module, "rehearse"):
            module.rehearse()
    gc.collect()
    gc.freeze()  # else the first collection of each component would copy all pages
    gc.enable()
    assert threading.active_count() == 1, threading.enumerate()  # noqa: S101 - others would be missing in the forks
    with socket.socket(fileno=descriptor) as asked:
        while True:
            message, descriptors, _, _ = socket.recv_fds(asked, _REQUEST_BYTES, _DESCRIPTORS)
            if not message:
                return 0
            try:
                answer: dict[str, Any] = {"pid": _fork(json.loads(message), descriptors, asked)}
            except OSError as error:
                answer = {"error": error.strerror}
            for each in descriptors:
                os.close(each)
            asked.send(json.dumps(answer).encode())


def _fork(request: dict[str, Any], descriptors: Sequence[int], asked: socket.socket) -> int:
    """The process ID of a component whose parent is who asked. OSError."""
    told, tell = os.pipe()
    try:
        between = os.fork()
        if between == 0:
            _fork_again(request, descriptors, asked, told, tell)
    finally:
        os.close(tell)
    with io.FileIO(told) as file:
        said = file.readall()
    os.waitpid(between, 0)
    if not said:
        raise OSError(0, "no process could be made")
    return int(said)


def _fork_again(
    request: dict[str, Any], descriptors: Sequence[int], asked: socket.socket, told: int, tell: int
) -> NoReturn:
    """In the process between: fork the component, say its process ID, end."""
    between = os.getpid()
    try:
        component = os.fork()
        if component != 0:
            os.write(tell, str(component).encode())
            os._exit(0)
        os.close(told)
        os.close(tell)
        asked.close()
        _become(request, descriptors, between)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(bugs.STATUS)


def _become(request: dict[str, Any], descriptors: Sequence[int], between: int) -> NoReturn:
    """In the component: be what the request says."""
    os.setsid()
    for given, standard in zip(descriptors, (sys.stdout.fileno(), sys.stderr.fileno()), strict=True):
        os.dup2(given, standard)
        os.close(given)
    while os.getppid() == between:
        time.sleep(_GONE_S)
    namespaces.die_with_parent(signal.SIGKILL)
    if os.getppid() != request["parent"]:
        os._exit(0)  # it died meanwhile
    if request["inside"] is not None:
        namespaces.enter_like(request["inside"])
    name, module, config = request["name"], request["module"], request["config"]
    setproctitle.setproctitle(f"{name}: python -m {module.removesuffix('.__main__')} {config}")
    sys.argv = [module, config]
    bugs.exit_with(name, lambda: int(sys.modules[module].main(Path(config))))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
