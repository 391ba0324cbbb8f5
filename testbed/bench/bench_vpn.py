"""`python -m testbed.bench.bench_vpn`: tunnels under keys that change: packets lost, times, throughput.

Five nodes in a row, links of 20 ms, QCs that are never the bottleneck. For each kind of tunnel, over one hop and over
two: how long the command takes, of which the first key takes what lies between the request for it and packets under
it; how many of the pings that go through while keys change a hundred times get no answer, and how many handshakes
fail; how long after its last key began, in intervals, an end lets nothing through once no key comes. TLS carries
connections and no pings: there each one has a handshake of its own, under the newest key, and what counts is how long
one takes until its request is answered, and how many are not. Then, over links without delay, the throughput of one TCP
connection through the tunnel beside that of one outside it.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from decisions.tunnels import KINDS, TLS
from telemetry import journal
from testbed.api import until
from testbed.bench.bench_client import FIRST, PARTNERS, row_of_five
from testbed.bench.bench_run import bench, options, with_network
from testbed.errors import UserError
from testbed.machine import output
from testbed.machine.namespaces import call_in_network, network_of
from testbed.network.emulation import Emulation
from testbed.operation.operator import Operator
from testbed.operation.tables import table

_DELAY_MS = 20.0
_ROTATIONS, _EVERY_S = 100, 1.0
_GAP_S = 0.02  # between two pings
_CONNECTIONS_GAP_S, _AT_ONCE = 0.1, 32
_ROUNDS, _ROUND_S = 3, 3.0
_CHUNK = bytes(1 << 16)
_PORT, _TLS_PORT = 5201, 80
_PATIENCE_S = 20.0


def main() -> int:
    """Print three tables; the exit status."""
    options("a quarter of an hour").parse_args()
    print(f"tunnels under a new key every {_EVERY_S:g} s; links of {_DELAY_MS:g} ms; a quarter of an hour", flush=True)
    return bench("bench-vpn", _both)


def _both() -> int:
    return with_network(row_of_five(_DELAY_MS), _rotations) or with_network(row_of_five(0.0), _throughput)


def _rotations(emulation: Emulation) -> None:
    with contextlib.closing(Operator(emulation, end=lambda: None)) as operator:
        rows: dict[bool, list[Sequence[object]]] = {False: [], True: []}  # by whether it is TLS
        for kind in KINDS:
            for hops, b in enumerate(PARTNERS[:2], 1):
                rows[kind == TLS].append((kind, hops, *_rotated(emulation, operator, kind, b)))
                print(f"{kind} to {b}: done", file=sys.stderr, flush=True)
    keys = ("kind", "hops", "command, s", "first key, ms", "next keys, ms", "keys", "closed after, intervals")
    print("\n" + table((*keys, "handshakes failed", "pings", "lost"), rows[False]), flush=True)
    print(table((*keys, "connections", "lost", "answered after, ms", "the slowest, ms"), rows[True]))
    print(
        "Command: until a tunnel is up. First key, next keys (median): from the request for a key until the leading"
        " end sends under it.\nClosed after: from an end's last key, without another one. Lost: without an answer."
        "\nAnswered after (median): from a connection's begin at one host, through a TLS handshake under the newest"
        " key, until the\nother host's answer is there.", flush=True,
    )  # fmt: skip


def _rotated(emulation: Emulation, operator: Operator, kind: str, b: str) -> Sequence[object]:
    a = FIRST
    since, began = time.time(), time.monotonic()
    opened = operator.do("open_tunnel", a=a, b=b, kind=kind, every_s=_EVERY_S)
    up_s = time.monotonic() - began
    carried = (_connections if kind == TLS else _pings)(emulation, a, b, opened["to"])
    for qc in operator.do("names")["qcs"]:
        operator.do("set_generation", qc=qc, enabled=False)
    until(lambda: all(end["state"] == "closed" for end in operator.do("tunnels")), _PATIENCE_S)
    events = [e for node in (a, b) for e in journal.read(emulation.run.path / "gateways" / node / "journal.jsonl")]
    events = [e for e in events if e["time"] >= since]
    keyed = [e for e in events if e["event"] == "tunnel_keyed"]
    taken = [e["duration_ms"] for e in keyed if "duration_ms" in e]
    failed = sum(e["event"] == "key_error" and e["cause"] == "handshake" for e in events)
    closed = [
        (e["mono"] - max(k["mono"] for k in keyed if k["node"] == e["node"])) / _EVERY_S
        for e in events
        if e["event"] == "tunnel_closed"
    ]
    operator.do("close_tunnel", a=a, b=b)
    for qc in operator.do("names")["qcs"]:
        operator.do("set_generation", qc=qc, enabled=True)
    until(lambda: all(qc["stored_bytes"] for qc in operator.do("qcs")), _PATIENCE_S)
    middle = sorted(taken[1:])[len(taken[1:]) // 2]
    counted = (up_s, taken[0], middle, len(taken), max(closed))
    return (*counted, *carried) if kind == TLS else (*counted, failed, *carried)


def _pings(emulation: Emulation, a: str, _: str, to: str) -> Sequence[object]:
    """How many went from host `a` to the address `to`, and how many had no answer."""
    pings = round(_ROTATIONS * _EVERY_S / _GAP_S)
    ping = ["ping", "-n", "-q", "-c", str(pings), "-i", str(_GAP_S), "-W", "2", to]
    said = subprocess.run([*emulation.network.enter(a), *ping], capture_output=True, text=True, check=False).stdout
    answered = re.search(r"(\d+) received", said)
    if answered is None:
        raise UserError(f"no pings through the tunnel: {said.strip() or 'nothing was said'}")
    return pings, pings - int(answered[1])


def _connections(emulation: Emulation, a: str, b: str, to: str) -> Sequence[object]:
    """How many went from host `a` to `b` at its address `to`, how many had no answer; ms to it, median and longest."""
    inside = [network_of(emulation.network.pid(host)) for host in (a, b)]
    listening = call_in_network(inside[1], lambda: socket.create_server((to, _TLS_PORT)))
    with listening, ThreadPoolExecutor(_AT_ONCE) as clients, ThreadPoolExecutor(_AT_ONCE) as answering:
        answering.submit(_serve, listening, answering.submit)
        began, asked = time.monotonic(), []
        for number in range(round(_ROTATIONS * _EVERY_S / _CONNECTIONS_GAP_S)):
            time.sleep(max(0.0, began + number * _CONNECTIONS_GAP_S - time.monotonic()))
            asked.append(clients.submit(call_in_network, inside[0], lambda: _answered_after(to)))
        times = sorted(found for each in asked if (found := each.result()) is not None)
        listening.shutdown(socket.SHUT_RDWR)
    if not times:
        raise UserError("no connection through the TLS tunnel has had an answer")
    return len(asked), len(asked) - len(times), 1000 * times[len(times) // 2], 1000 * times[-1]


def _serve(listening: socket.socket, submit: Callable[..., object]) -> None:
    with contextlib.suppress(OSError):  # until it is shut down
        while True:
            submit(_answer, listening.accept()[0])


def _answer(connection: socket.socket) -> None:
    with contextlib.suppress(OSError), connection:
        connection.sendall(connection.recv(1))


def _answered_after(to: str) -> float | None:
    """Seconds from the begin of a connection to the answer; None if there is none."""
    began = time.monotonic()
    try:
        with socket.create_connection((to, _TLS_PORT), timeout=_PATIENCE_S) as connection:
            connection.sendall(b"?")
            return time.monotonic() - began if connection.recv(1) else None
    except OSError:
        return None


def _throughput(emulation: Emulation) -> None:
    """Rounds outside and through each kind of tunnel alternate, so that a busy moment hits all."""
    a, b = FIRST, PARTNERS[0]
    found: dict[str, list[float]] = {name: [] for name in ("none", *KINDS)}
    with contextlib.closing(Operator(emulation, end=lambda: None)) as operator:
        for _ in range(_ROUNDS):
            found["none"].append(_mbit_s(emulation, a, b, emulation.plan.hosts[b].ip, _PORT))
            for kind in KINDS:
                opened = operator.do("open_tunnel", a=a, b=b, kind=kind)
                found[kind].append(_mbit_s(emulation, a, b, opened["to"], _TLS_PORT if kind == TLS else _PORT))
                operator.do("close_tunnel", a=a, b=b)
    medians = {name: sorted(rates)[len(rates) // 2] for name, rates in found.items()}
    rows = [(name, rate, f"{rate / medians['none']:.2f}") for name, rate in medians.items()]
    print("\n" + table(("tunnel", "one TCP connection, Mbit/s", "of none"), rows), flush=True)


def _mbit_s(emulation: Emulation, a: str, b: str, to: str, port: int) -> float:
    """What one TCP connection from host `a` brings to host `b`, at that port of its address `to`."""
    inside = [network_of(emulation.network.pid(host)) for host in (a, b)]
    listening = call_in_network(inside[1], lambda: socket.create_server((to, port)))
    with listening, call_in_network(inside[0], lambda: socket.create_connection((to, port))) as sends:
        receives, _ = listening.accept()
        over = threading.Event()
        sender = threading.Thread(target=_send, args=(sends, over))
        with receives:
            sender.start()
            received, began = 0, time.monotonic()
            while time.monotonic() < began + _ROUND_S:
                received += len(receives.recv(len(_CHUNK)))
            took = time.monotonic() - began
            over.set()
            receives.shutdown(socket.SHUT_RDWR)
        sender.join()
    return 8 * received / took / 1e6


def _send(connection: socket.socket, over: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while not over.is_set():
            connection.sendall(_CHUNK)


if __name__ == "__main__":
    sys.exit(output.run(main))
