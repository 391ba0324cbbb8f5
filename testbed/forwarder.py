"""`python -m testbed.forwarder CONFIG.json`: carries TCP connections across a border between network namespaces.

It accepts in one namespace and connects in another; a socket stays where it was opened. This is the only way across:
the emulated network has no route to the machine's own, and no packet of it can leave by a real interface.

Each route is {"listen": [NETWORK, ADDRESS, PORT], "connect": [NETWORK, ADDRESS, PORT]}; a NETWORK is the path of a
namespace file such as `/proc/123/ns/net`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etsi.checks import integer, mapping, sequence, text
from testbed.namespaces import call_in_network

_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Place:
    """An address in a network namespace (given by the path of its file)."""

    network: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Route:
    """Where to accept and where to connect to."""

    listen: Place
    connect: Place


def parse(document: Any) -> list[Route]:
    """The routes in a configuration document. ValueError names the member and what was expected."""
    routes = sequence(mapping(document, "configuration").get("routes"), "routes", longest=10_000)
    return [
        Route(_place(mapping(r, f"routes[{i}]").get("listen"), f"routes[{i}].listen"),
              _place(r.get("connect"), f"routes[{i}].connect"))
        for i, r in enumerate(routes)
    ]  # fmt: skip


def _place(value: Any, field: str) -> Place:
    given = sequence(value, field, longest=3)
    if len(given) != 3:
        raise ValueError(f"{field}: expected [network, address, port]")
    network = text(given[0], f"{field}[0]", longest=4096)
    return Place(network, text(given[1], f"{field}[1]"), integer(given[2], f"{field}[2]", low=1, high=65535))


def _open(place: Place, networks: dict[str, int]) -> socket.socket:
    if place.network not in networks:
        networks[place.network] = os.open(place.network, os.O_RDONLY | os.O_CLOEXEC)
    family = socket.AF_INET6 if ":" in place.address else socket.AF_INET
    opened = call_in_network(networks[place.network], lambda: socket.socket(family, socket.SOCK_STREAM))
    opened.setblocking(False)
    return opened


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes one way until the end, and pass the end on."""
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


async def _serve(route: Route, networks: dict[str, int]) -> asyncio.Server:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        outgoing = _open(route.connect, networks)
        try:
            await asyncio.get_running_loop().sock_connect(outgoing, (route.connect.address, route.connect.port))
            outgoing.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            far_reader, far_writer = await asyncio.open_connection(sock=outgoing)
        except OSError:
            outgoing.close()
            # A reset: the nearest thing to the refusal that we met.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return
        try:
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        finally:
            far_writer.close()
            writer.close()

    listener = _open(route.listen, networks)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((route.listen.address, route.listen.port))
    except OSError as error:
        listener.close()
        where = f"{route.listen.address}:{route.listen.port}"
        raise OSError(error.errno, f"cannot listen on {where}: {error.strerror}") from None
    return await asyncio.start_server(carry, sock=listener)


async def _run(routes: list[Route]) -> None:
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    networks: dict[str, int] = {}
    for route in routes:
        await _serve(route, networks)
    print("ready", flush=True)
    await stop.wait()


def main(path: Path) -> int:
    """Serve the routes in `path` until SIGTERM or SIGINT; the exit status."""
    try:
        routes = parse(json.loads(path.read_text()))
        asyncio.run(_run(routes))
    except (OSError, ValueError) as error:
        print(f"forwarder: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("usage: python -m testbed.forwarder CONFIG.json", file=sys.stderr)
        sys.exit(2)
    sys.exit(main(Path(sys.argv[1])))
