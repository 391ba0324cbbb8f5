"""`python -m testbed.machine.forwarder CONFIG.json`: carries TCP connections from one network namespace into another.

It accepts in one namespace and connects in another; a socket stays where it was opened. This is the only way across:
the emulated network has no route to the machine's own, and no packet of it can leave by a real interface.

Each route is {"listen": [NETWORK, ADDRESS, PORT], "connect": [NETWORK, ADDRESS, PORT]}; a NETWORK is the path of a
namespace file such as `/proc/123/ns/net`. To listen on port 0 is to listen on any that is free: before it says `ready`,
the forwarder writes {"ports": [PORT, ...]}, in the order of the routes, into the file that `report` names.

Some of its clients are strangers. One that says nothing costs two descriptors and no thread, and each route holds only
so many connections: beyond that, the one without traffic for the longest time is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import resource
import signal
import socket
import struct
import sys
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from documents.checks import integer, mapping, sequence, text
from testbed.machine.namespaces import call_in_network, threads_in_network

_BACKLOG = 1024
_MOST_DESCRIPTORS = 65_536
_OWN_DESCRIPTORS = 64  # standard streams, listeners, namespaces, what Python has open
_MOST_CONNECTIONS = 4096  # on a route: far more than clients need, and some tens of MB of memory at most
_FEWEST_CONNECTIONS = 8
# One side has ended and the other is silent: it may have crashed, and no protocol of ours is silent for so long then.
_HALF_OPEN_S = 30.0


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


@dataclass(frozen=True, slots=True)
class Configuration:
    """The routes, and the file to write the ports into that were bound (None: nobody asked)."""

    routes: list[Route]
    report: Path | None


def parse(document: Any) -> Configuration:
    """The configuration in a document. ValueError names the member and what was expected."""
    given = mapping(document, "configuration")
    routes = sequence(given.get("routes"), "routes", longest=10_000)
    report = given.get("report")
    return Configuration(
        [
            Route(_place(mapping(r, f"routes[{i}]").get("listen"), f"routes[{i}].listen", lowest=0),
                  _place(r.get("connect"), f"routes[{i}].connect"))
            for i, r in enumerate(routes)
        ],
        None if report is None else Path(text(report, "report", longest=4096)),
    )  # fmt: skip


def _place(value: Any, field: str, lowest: int = 1) -> Place:
    given = sequence(value, field, longest=3)
    if len(given) != 3:
        raise ValueError(f"{field}: expected [network, address, port]")
    network = text(given[0], f"{field}[0]", longest=4096)
    return Place(network, text(given[1], f"{field}[1]"), integer(given[2], f"{field}[2]", low=lowest, high=65535))


def connections_per_route(descriptors: int, routes: int) -> int:
    """How many connections each route may hold, at two descriptors a connection. PURE."""
    share = (descriptors - _OWN_DESCRIPTORS) // (2 * max(1, routes))
    return max(_FEWEST_CONNECTIONS, min(_MOST_CONNECTIONS, share))


def _allow_many_descriptors() -> int:
    """Raise the soft limit of open files as far as makes sense; what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return _MOST_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


class _Networks:
    """Sockets opened in other network namespaces."""

    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        self._threads: dict[str, ThreadPoolExecutor] = {}

    def open(self, place: Place) -> socket.socket:
        """A socket there, at once."""
        return call_in_network(self._file(place.network), lambda: _new_socket(place.address))

    async def open_later(self, place: Place) -> socket.socket:
        """A socket there, while others go on: one thread lives in each namespace that is connected to."""
        if place.network not in self._threads:
            self._threads[place.network] = threads_in_network(self._file(place.network), 1, "opener")
        thread = self._threads[place.network]
        return await asyncio.get_running_loop().run_in_executor(thread, _new_socket, place.address)

    def _file(self, network: str) -> int:
        if network not in self._files:
            self._files[network] = os.open(network, os.O_RDONLY | os.O_CLOEXEC)
        return self._files[network]


def _new_socket(address: str) -> socket.socket:
    opened = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    opened.setblocking(False)
    return opened


class _Side(asyncio.Protocol):
    """One of a connection's two sockets: what arrives here is written to the other one, no faster than it takes it."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self.transport: asyncio.Transport | None = None
        self.ended = False  # no more bytes will come from here

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is connected."""
        self.transport = cast(asyncio.Transport, transport)
        self._connection.side_open(self)

    def data_received(self, data: bytes) -> None:
        """Bytes arrived."""
        self._connection.carry(self, data)

    def eof_received(self) -> bool:
        """The end arrived. True: what goes the other way may go on."""
        self._connection.end(self)
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio gives it
        """The socket is closed, by us or by an error."""
        self._connection.side_lost(self)

    def pause_writing(self) -> None:
        """This side takes no more for now."""
        self._connection.other(self).pause(True)

    def resume_writing(self) -> None:
        """This side takes more again."""
        self._connection.other(self).pause(False)

    def pause(self, stop: bool) -> None:
        """Stop reading here, or go on."""
        if self.transport is not None and not self.transport.is_closing():
            if stop:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def sending(self) -> bool:
        """Whether there are bytes that the socket has not taken yet."""
        return self.transport is not None and self.transport.get_write_buffer_size() > 0

    def close(self, *, reset: bool) -> None:
        """Close the socket: at once with a reset, or when all that was written to it has been sent."""
        if self.transport is None:
            return
        if not reset:
            self.transport.close()
            return
        with contextlib.suppress(OSError):
            linger = struct.pack("ii", 1, 0)
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.transport.abort()


class _Connection:
    """A client's socket, the server's, and what goes between them."""

    def __init__(self, listener: _Listener) -> None:
        self._listener = listener
        self.near, self.far = _Side(self), _Side(self)
        self._connecting: asyncio.Task[None] | None = None
        self._early = b""  # what the client sent before the server took the connection
        self._last_traffic = 0.0
        self._closed = False

    def other(self, side: _Side) -> _Side:
        """The opposite side."""
        return self.far if side is self.near else self.near

    def side_open(self, side: _Side) -> None:
        """A client came; or the server took the connection."""
        self._seen()
        if side is self.near:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
        elif self._closed:
            side.close(reset=True)
        elif side.transport is not None:
            side.transport.write(self._early)
            self._early = b""
            self.near.pause(False)
            if self.near.ended:
                side.transport.write_eof()

    async def _connect(self) -> None:
        try:
            outgoing = await self._reach(self._listener.route.connect)
            await asyncio.get_running_loop().create_connection(lambda: self.far, sock=outgoing)
        except OSError:
            self.close(reset=True)  # the nearest thing to the refusal that we met

    async def _reach(self, place: Place) -> socket.socket:
        outgoing = await self._listener.networks.open_later(place)
        try:
            await asyncio.get_running_loop().sock_connect(outgoing, (place.address, place.port))
        except BaseException:
            outgoing.close()
            raise
        return outgoing

    def carry(self, source: _Side, data: bytes) -> None:
        """Pass bytes on."""
        self._seen()
        target = self.other(source).transport
        if target is None:
            self._early += data
            source.pause(True)  # until there is somebody to carry it to
        elif not target.is_closing():
            target.write(data)

    def end(self, source: _Side) -> None:
        """Pass the end of one direction on; after both, close."""
        source.ended = True
        target = self.other(source)
        if target.ended:
            self.close(reset=False)
            return
        if target.transport is not None and not target.transport.is_closing():
            target.transport.write_eof()
        self._give_up_later()

    def side_lost(self, side: _Side) -> None:
        """A socket is gone, by a reset perhaps: so goes the other one, after it has sent what it still has."""
        side.ended = True
        self.close(reset=False)

    def close(self, *, reset: bool) -> None:
        """Close both sockets."""
        if self._closed:
            return
        self._closed = True
        self._listener.forget(self)
        if self._connecting is not None:
            self._connecting.cancel()
        for side in (self.near, self.far):
            side.close(reset=reset)
            if side.sending():  # to somebody who may never take it
                asyncio.get_running_loop().call_later(_HALF_OPEN_S, functools.partial(side.close, reset=True))

    def _seen(self) -> None:
        if self._closed:
            return
        self._last_traffic = asyncio.get_running_loop().time()
        self._listener.touch(self)

    def _give_up_later(self) -> None:
        loop = asyncio.get_running_loop()
        loop.call_at(max(self._last_traffic, loop.time() - _HALF_OPEN_S) + _HALF_OPEN_S, self._give_up)

    def _give_up(self) -> None:
        if self._closed:
            return
        if asyncio.get_running_loop().time() - self._last_traffic < _HALF_OPEN_S:
            self._give_up_later()
        else:
            self.close(reset=True)


class _Listener:
    """A route in service: its connections, the one that has been silent longest first."""

    def __init__(self, route: Route, networks: _Networks, most: int) -> None:
        self.route = route
        self.networks = networks
        self._most = most
        self._connections: OrderedDict[_Connection, None] = OrderedDict()

    async def listen(self) -> int:
        """Serve from now on; the port that was bound. OSError names address and port."""
        place = self.route.listen
        bound = self.networks.open(place)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((place.address, place.port))
            await asyncio.get_running_loop().create_server(lambda: _Connection(self).near, sock=bound, backlog=_BACKLOG)
        except OSError as error:
            bound.close()
            where = f"{place.address}:{place.port}"
            raise OSError(error.errno, f"cannot listen on {where}: {os.strerror(error.errno or 0)}") from None
        return int(bound.getsockname()[1])

    def touch(self, connection: _Connection) -> None:
        """There was traffic. A new connection beyond the limit takes the place of the most silent one."""
        self._connections[connection] = None
        self._connections.move_to_end(connection)
        if len(self._connections) > self._most:
            next(iter(self._connections)).close(reset=True)

    def forget(self, connection: _Connection) -> None:
        """It is closed."""
        self._connections.pop(connection, None)


async def _run(configuration: Configuration) -> None:
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    most = connections_per_route(_allow_many_descriptors(), len(configuration.routes))
    networks = _Networks()
    ports = [await _Listener(route, networks, most).listen() for route in configuration.routes]
    if configuration.report is not None:
        _write(configuration.report, {"ports": ports})
    print("ready", flush=True)
    await stop.wait()


def _write(path: Path, document: object) -> None:
    """Write in one step: a reader finds all or nothing."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(document))
    temporary.replace(path)


def main(path: Path) -> int:
    """Serve the routes in `path` until SIGTERM or SIGINT; the exit status."""
    try:
        configuration = parse(json.loads(path.read_text()))
        asyncio.run(_run(configuration))
    except (OSError, ValueError) as error:
        print(f"forwarder: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("usage: python -m testbed.machine.forwarder CONFIG.json", file=sys.stderr)
        sys.exit(2)
    sys.exit(main(Path(sys.argv[1])))
