"""`python -m testbed.bench.bench_vpn`: tunnels under keys that change: packets lost, times, throughput.

Five nodes in a row, links of 20 ms, QCs that are never the bottleneck. For each kind of tunnel, over one hop and over
two: how long the command takes, of which the first key takes what lies between the request for it and packets under
it; how many of the pings that go through while keys change a hundred times get no answer, and how many handshakes
fail; how long after its last key began, in intervals, an end lets nothing through once no key comes. Then, over links
without delay, the throughput of one TCP connection through the tunnel beside that of one outside it.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from decisions.tunnels import KINDS
from telemetry import journal
from testbed.api import until
from testbed.bench.bench_client import FIRST, PARTNERS, row_of_five
from testbed.bench.bench_run import bench, with_network
from testbed.errors import UserError
from testbed.machine import output
from testbed.machine.namespaces import call_in_network, network_of
from testbed.network.emulation import Emulation
from testbed.operation.operator import Operator
from testbed.operation.tables import table

_DELAY_MS = 20.0
_ROTATIONS, _EVERY_S = 100, 1.0
_GAP_S = 0.02  # between two pings
_ROUNDS, _ROUND_S = 3, 3.0
_CHUNK = bytes(1 << 16)
_PORT = 5201
_PATIENCE_S = 20.0


def main() -> int:
    """Print two tables; the exit status."""
    print(f"tunnels under a new key every {_EVERY_S:g} s; links of {_DELAY_MS:g} ms; about eight minutes", flush=True)
    return bench("bench-vpn", _both)


def _both() -> int:
    return with_network(row_of_five(_DELAY_MS), _rotations) or with_network(row_of_five(0.0), _throughput)


def _rotations(emulation: Emulation) -> None:
    with contextlib.closing(Operator(emulation, end=lambda: None)) as operator:
        rows = []
        for kind in KINDS:
            for hops, b in enumerate(PARTNERS[:2], 1):
                rows.append((kind, hops, *_rotated(emulation, operator, kind, b)))
                print(f"{kind} to {b}: done", file=sys.stderr, flush=True)
    header = (
        "kind", "hops", "command, s", "first key, ms", "next keys, ms", "keys", "pings", "lost", "handshakes failed",
        "closed after, intervals",
    )  # fmt: skip
    print("\n" + table(header, rows), flush=True)


def _rotated(emulation: Emulation, operator: Operator, kind: str, b: str) -> Sequence[object]:
    a = FIRST
    since, began = time.time(), time.monotonic()
    opened = operator.do("open_tunnel", a=a, b=b, kind=kind, every_s=_EVERY_S)
    up_s = time.monotonic() - began
    pings = round(_ROTATIONS * _EVERY_S / _GAP_S)
    ping = ["ping", "-n", "-q", "-c", str(pings), "-i", str(_GAP_S), "-W", "2", opened["to"]]
    said = subprocess.run([*emulation.network.enter(a), *ping], capture_output=True, text=True, check=False).stdout
    answered = re.search(r"(\d+) received", said)
    if answered is None:
        raise UserError(f"no pings through the {kind} tunnel: {said.strip() or 'nothing was said'}")
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
    return up_s, taken[0], middle, len(taken), pings, pings - int(answered[1]), failed, max(closed)


def _throughput(emulation: Emulation) -> None:
    """Rounds outside and through each kind of tunnel alternate, so that a busy moment hits all."""
    a, b = FIRST, PARTNERS[0]
    found: dict[str, list[float]] = {name: [] for name in ("none", *KINDS)}
    with contextlib.closing(Operator(emulation, end=lambda: None)) as operator:
        for _ in range(_ROUNDS):
            found["none"].append(_mbit_s(emulation, a, b, emulation.plan.hosts[b].ip))
            for kind in KINDS:
                opened = operator.do("open_tunnel", a=a, b=b, kind=kind)
                found[kind].append(_mbit_s(emulation, a, b, opened["to"]))
                operator.do("close_tunnel", a=a, b=b)
    medians = {name: sorted(rates)[len(rates) // 2] for name, rates in found.items()}
    rows = [(name, rate, f"{rate / medians['none']:.2f}") for name, rate in medians.items()]
    print("\n" + table(("tunnel", "Mbit/s", "of none"), rows), flush=True)


def _mbit_s(emulation: Emulation, a: str, b: str, to: str) -> float:
    """What one TCP connection from host `a` brings to host `b`, at its address `to`."""
    inside = [network_of(emulation.network.pid(host)) for host in (a, b)]
    listening = call_in_network(inside[1], lambda: socket.create_server((to, _PORT)))
    with listening, call_in_network(inside[0], lambda: socket.create_connection((to, _PORT))) as sends:
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
