"""`python -m testbed.workers.passage CONFIG.json`: the way of QC blocks from home to a node on another machine.

The emulator of QCs runs at home, and hands blocks over by the socket in a node's folder. Of a node elsewhere the folder
at home has a socket of this process, which carries what comes there over mutual TLS to the same process on the node's
machine, and that to the node's own socket. Each connection begins with a line that names the node. A connection that
ends on one side ends on the other, so the emulator sees that a node is away as it does of a node at home, and keeps the
block. Only the two ends of a passage talk to each other: both are in the role `machine`, by name.

At home:    {"credentials": {...}, "to": {"NODE": {"folder": "...", "machine": "NAME", "address": "..."}}}
Elsewhere:  {"credentials": {...}, "listen": "ADDRESS", "nodes": {"NODE": "FOLDER"}}
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtls.credentials import Credentials
from mtls.identity import Identity, Role, identity_from_uris
from mtls.liveness import notice_death
from mtls.unix_socket import short_name
from node.material.blocks import SOCKET
from scenario.machines import HOME
from telemetry import bugs

PORT = 7443
_CHUNK_BYTES = 1 << 16
_HELLO_S = 5.0
_Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _carry(one: _Pair, other: _Pair) -> None:
    """What comes by either goes out by the other, until one of them ends."""

    async def way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()

    ways = [asyncio.ensure_future(way(one[0], other[1])), asyncio.ensure_future(way(other[0], one[1]))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in ways:
            each.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _end(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _socket_at(folder: Path) -> socket.socket:
    """A socket in place of that of the node whose folder it is."""
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    (folder / SOCKET).unlink(missing_ok=True)
    with short_name(folder / SOCKET) as name:
        found.bind(name)
    return found


class _Departure:
    """At home: where the emulator leaves blocks for a node elsewhere."""

    def __init__(self, credentials: Credentials, node: str, route: Mapping[str, Any]) -> None:
        self._context = credentials.client_context()
        self._node = node
        self._address = route["address"]
        self._name = Identity(Role.MACHINE, route["machine"]).dns

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the emulator's."""
        try:
            far = await asyncio.open_connection(
                self._address, PORT, ssl=self._context, server_hostname=self._name, ssl_handshake_timeout=_HELLO_S
            )
        except (OSError, TimeoutError):
            await _end(writer)  # the emulator tries again
            return
        try:
            notice_death(far[1].get_extra_info("socket"))
            far[1].write(f"{self._node}\n".encode())
            await _carry((reader, writer), far)
        finally:
            await _end(far[1])
            await _end(writer)


class _Arrival:
    """On another machine: the nodes that are there."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = folders

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection from home."""
        near = None
        try:
            if (folder := await self._folder(reader, writer)) is not None:
                with short_name(folder / SOCKET) as name:
                    near = await asyncio.open_unix_connection(name)
                await _carry((reader, writer), near)
        except OSError:  # the node is not there: home notices that the connection ends
            pass
        finally:
            if near is not None:
                await _end(near[1])
            await _end(writer)

    async def _folder(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Path | None:
        """Whose blocks these are; None if that is nobody here, or the caller is not home."""
        notice_death(writer.get_extra_info("socket"))
        names = writer.get_extra_info("peercert").get("subjectAltName", ())
        try:
            caller = identity_from_uris(value for kind, value in names if kind == "URI")
            line = await asyncio.wait_for(reader.readuntil(b"\n"), _HELLO_S)
        except (ValueError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return None
        if caller != Identity(Role.MACHINE, HOME):
            return None
        return self._folders.get(line[:-1].decode(errors="replace"))


async def _serve(config: Mapping[str, Any]) -> None:
    credentials = Credentials.from_config(config["credentials"], "credentials")
    for node, route in config.get("to", {}).items():
        departure = _Departure(credentials, node, route)
        await asyncio.start_unix_server(departure.carry, sock=_socket_at(Path(route["folder"])))
    if "listen" in config:
        arrival = _Arrival({node: Path(folder) for node, folder in config["nodes"].items()})
        await asyncio.start_server(
            arrival.carry, config["listen"], PORT, ssl=credentials.server_context(), ssl_handshake_timeout=_HELLO_S
        )
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    print("ready", flush=True)
    await ended.wait()


def main(path: Path) -> int:
    """Carry blocks as `path` describes until SIGTERM or SIGINT; the exit status."""
    os.umask(0o077)
    try:
        config = json.loads(path.read_text())
        asyncio.run(_serve(config))
    except (OSError, ValueError, KeyError) as error:
        print(f"passage: {path}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("usage: python -m testbed.workers.passage CONFIG.json", file=sys.stderr)
        sys.exit(2)
    bugs.exit_with("passage", lambda: main(Path(sys.argv[1])))
