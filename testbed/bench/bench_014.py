"""`python -m testbed.bench.bench_014`: how many keys a pair of KMEs gives a second, and its server alone.

Two nodes on loopback, QCs that are never the bottleneck, clients that keep their connections. The bare handler runs on
the same server, reads the same requests and answers a constant of the same length; rounds against it and against the
KME alternate, so that a busy moment hits both. A second table tells which process the processor's time went to.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from mtls.call import Caller, Unreachable
from mtls.credentials import Credentials
from mtls.identity import Identity, Role
from testbed.bench.bench_run import ROOT, bench, options
from testbed.errors import UserError
from testbed.machine import output
from testbed.machine.isolation import run_isolated, undisturbed
from testbed.machine.run_directory import RunDirectory, open_run_directory
from testbed.network.loopback import LOOPBACK, Stack, free_port
from testbed.operation.tables import table

_LINKS = [("a-b/1", "a", "b")]
_MASTER, _SLAVE = str(uuid.uuid4()), str(uuid.uuid4())
# Keys in a request, and bytes a slot that the QC makes: more than is used, but to store them costs the nodes time, too.
_BYTES_PER_SLOT = {1: 60_000, 64: 1_000_000}
_MODES = ("basic", "qkp")  # one key at a time, and keys made ahead
_CLIENTS = (1, 4, 16)
_SIZE_BITS = 256
_ROUNDS = 5
_ROUND_S = 1.5
_WARM_UP_S = 0.3
_SETTLE_S = 5.0  # until the nodes have heard of another rate and there is some stock
_NODE = Identity(Role.NODE, "a")
# Processes by the name that the second table has for them; PostgreSQL's are one for each connection of a node.
_PARTS = {"node-a": "master's KME", "node-b": "slave's KME", "postgres": "PostgreSQL", "bare": "bare handler"}
_PARTS_OF_KEYS = ("client", *list(_PARTS)[:-1])
_TICKS_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class _Answered:
    """Requests answered, each second once it was warm, and in all."""

    per_s: float
    number: int


def main() -> int:
    """Measure in namespaces of its own; prints a table. The exit status."""
    options("some five minutes").parse_args()
    return bench("bench-014", _in_a_run)


def _in_a_run() -> int:
    directory = open_run_directory(None, ROOT / "runs", latest=False)
    try:
        return run_isolated(
            lambda _: _measure(directory),
            pid_file=directory.path / "init.pid",
            crash_log=directory.path / "crash.log",
        )
    finally:
        directory.erase_secrets()


def _measure(directory: RunDirectory) -> int:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    stack = Stack(directory.path)
    try:
        bare = _start(stack)
        keys = f"{stack.kme('a')}/api/v1/keys/{_SLAVE}/enc_keys"
        credentials = stack.issue(Role.SAE, _MASTER)
        _wait_for_keys(credentials, keys)
        loads = list(itertools.product(_MODES, _BYTES_PER_SLOT.items()))
        takes_s = len(loads) * (_SETTLE_S + len(_CLIENTS) * _ROUNDS * 2 * (_WARM_UP_S + _ROUND_S))
        print(f"014 load: keys of {_SIZE_BITS} bits over one hop, {_ROUNDS} rounds of {_ROUND_S:g} s each, medians;"
              f" the table comes in about {takes_s / 60:.0f} min", flush=True)  # fmt: skip
        rows, spent = [], []
        for mode, (number, rate) in loads:
            _tell_controller(stack, "PATCH", "parameters", {"mode": mode})
            _tell_controller(stack, "PUT", f"qcs/{_LINKS[0][0]}/rate", {"low": rate, "high": rate})
            time.sleep(_SETTLE_S)
            for clients in _CLIENTS:
                row, us = _row(stack, credentials, (keys, bare), {"number": number, "size": _SIZE_BITS}, clients)
                rows.append((mode, number, clients, *row))
                spent.append((mode, number, clients, *us))
    finally:
        with undisturbed():
            stack.stop()
    header = ("mode", "number", "clients", "keys/s", "requests/s", "bare requests/s", "ratio", "lowest", "highest")
    print(table(header, rows))
    print("Processor time a request, in microseconds; the last column is of requests to the bare handler")
    print(table(("mode", "number", "clients", "client", *_PARTS.values()), spent), end="", flush=True)
    return 0


def _start(stack: Stack) -> str:
    """Bring everything up; the URL of the bare handler."""
    stack.start_postgres()
    stack.start_controller()
    stack.start_nodes(_LINKS, {_MASTER: "a", _SLAVE: "b"})
    stack.start_qcs(_LINKS, low=1000, high=1000)
    port = free_port()
    document = {"host": LOOPBACK, "port": port, "credentials": stack.issue(Role.NODE, "a").to_config()}
    stack.processes.component("bare", "testbed.bench.bare", stack.write("bare", document)).wait_ready()
    return f"https://{LOOPBACK}:{port}/"


def _tell_controller(stack: Stack, method: str, what: str, body: dict[str, object]) -> None:
    operator = stack.caller(Role.OPERATOR, "operator")
    url = f"https://{LOOPBACK}:{stack.controller_port}/qkd/v1/{what}"
    reply = operator.request(method, url, to=Identity(Role.CONTROLLER, "ctl"), body=body)
    operator.close()
    if not reply.ok:
        raise UserError(reply.message)


def _wait_for_keys(credentials: Credentials, url: str) -> None:
    caller = Caller(credentials)
    deadline = time.monotonic() + 30
    while not caller.request("POST", url, to=_NODE, body={"number": 64}).ok:
        if time.monotonic() > deadline:
            raise UserError("no keys after 30 s")
        time.sleep(0.2)
    caller.close()


def _row(
    stack: Stack, credentials: Credentials, urls: tuple[str, str], body: dict[str, int], clients: int
) -> tuple[tuple[object, ...], list[int]]:
    """The rows of both tables, for requests to the KME and to the bare handler, which are at `urls`."""
    rounds = []
    for _ in range(_ROUNDS):
        before = _processor_s(stack)
        bare = _requests_per_s(credentials, urls[1], body, clients)
        between = _processor_s(stack)
        keyed = _requests_per_s(credentials, urls[0], body, clients)
        rounds.append((bare, keyed, before, between, _processor_s(stack)))
    rates = [(bare.per_s, keyed.per_s) for bare, keyed, *_ in rounds]
    bare_rate, rate = (statistics.median(column) for column in zip(*rates, strict=True))
    ratios = sorted(keyed / plain for plain, keyed in rates)
    row = (
        round(rate * body["number"]), round(rate), round(bare_rate),
        *(f"{r:.2f}" for r in (statistics.median(ratios), ratios[0], ratios[-1])),
    )  # fmt: skip
    of_keys, of_bare = sum(keyed.number for _, keyed, *_ in rounds), sum(bare.number for bare, *_ in rounds)
    spent = [sum(after[n] - between[n] for *_, between, after in rounds) / of_keys for n in _PARTS_OF_KEYS]
    spent.append(sum(between["bare"] - before["bare"] for _, _, before, between, _ in rounds) / of_bare)
    return row, [round(1e6 * s) for s in spent]


def _processor_s(stack: Stack) -> dict[str, float]:
    """Processor time that this process, the client, and the others have taken so far, in seconds."""
    found = dict.fromkeys(_PARTS, 0.0) | {"client": time.process_time()}
    pids = {stack.processes.named(name).pid: name for name in _PARTS}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            fields = path.read_text().rpartition(") ")[2].split()
            name = pids.get(int(path.parent.name)) or pids.get(int(fields[1]))
            if name is not None:
                found[name] += (int(fields[11]) + int(fields[12])) / _TICKS_S
    return found


def _requests_per_s(credentials: Credentials, url: str, body: dict[str, int], clients: int) -> _Answered:
    """Requests by `clients` at once, each with a connection of its own that is kept."""
    caller = Caller(credentials, connections=clients)
    begin = time.monotonic() + _WARM_UP_S
    end = begin + _ROUND_S
    answered, warming, failures = [0] * clients, [0] * clients, []

    def ask(client: int) -> None:
        while (now := time.monotonic()) < end:
            try:
                reply = caller.request("POST", url, to=_NODE, body=body)
            except Unreachable as error:
                failures.append(str(error))
                return
            if not reply.ok:
                failures.append(reply.message)
                return
            answered[client] += begin <= now
            warming[client] += now < begin

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    caller.close()
    if failures:
        raise UserError(f"{url}: {failures[0]}")
    return _Answered(sum(answered) / _ROUND_S, sum(answered + warming))


if __name__ == "__main__":
    sys.exit(output.run(main))
