"""Everything that passes between our controller and our agents, recorded in the clear: never a key in it.

Proxies with the nodes' names stand between them and write down both directions. They can because the test owns the CA.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtls.identity import Identity, Role
from telemetry import journal
from testbed.loopback import LOOPBACK
from tests.service.gs015.conftest import LINKS, Network, wait_until

SEED = 15


class Recorder:
    """A proxy before the agent of `node`, with that node's name and, towards the node, the controller's."""

    def __init__(self, network: Network, node: str) -> None:
        self.seen = bytearray()
        self._server = network.issue(Role.NODE, node).server_context()
        self._client = network.issue(Role.CONTROLLER, "ctl").client_context()
        self._to = Identity(Role.NODE, node)
        self._agent = network.ports[node][1]
        self._listener = socket.create_server((LOOPBACK, 0))
        self.url = f"https://{LOOPBACK}:{self._listener.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self._thread.start()

    def close(self) -> None:
        """End all connections."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._relay, sock=self._listener, ssl=self._server)
        await self._stopping.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.05)  # asyncio closes the sockets in the loop's next turns

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(
                LOOPBACK, self._agent, ssl=self._client, server_hostname=self._to.dns
            )
        except OSError:
            writer.close()
            return
        pumps = [asyncio.ensure_future(p) for p in (self._pump(reader, far_writer), self._pump(far_reader, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            for side in (writer, far_writer):
                side.close()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                self.seen += data
                target.write(data)
                await target.drain()


@pytest.fixture(params=["basic", "qkp", "otp"])
def recorded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Network, dict[str, Recorder]]]:
    """A network whose controller reaches the agents by way of recorders."""
    network = Network(tmp_path)
    recorders: dict[str, Recorder] = {}
    try:
        network.start_postgres()
        network.ids = {n: f"00000000-0000-4000-8000-00000000000{i}" for i, n in enumerate(("alice", "bob", "carol"))}
        homes = dict(zip(network.ids.values(), "abc", strict=True))
        network.start_nodes(LINKS, homes)
        recorders |= {n: Recorder(network, n) for n in "abc"}
        network.start_qcs(LINKS, low=2000, high=2000, slot_s=0.25, seed=SEED)
        network.saes = {name: network.caller(Role.SAE, sae) for name, sae in network.ids.items()}
        network.start_controller(agents={n: r.url for n, r in recorders.items()}, mode=request.param)
        yield network, recorders
    finally:
        network.stop()
        for recorder in recorders.values():
            recorder.close()


def forms(secret: bytes) -> list[bytes]:
    """How bytes may stand in a message."""
    return [secret, base64.b64encode(secret).rstrip(b"=")[:-1], secret.hex().encode(), secret.hex().upper().encode()]


def test_no_key_and_no_qc_output_in_any_message(recorded):
    """Sessions over one hop and two are opened, used, read and closed meanwhile."""
    network, recorders = recorded
    keys: list[bytes] = []

    def exchange(slave: str) -> bool:
        given = network.enc_keys("alice", slave)
        if not given.ok:
            return False
        assert network.dec_keys(slave, "alice", given).body == given.body
        keys.append(base64.b64decode(given.body["keys"][0]["key"]))
        return True

    for slave in ("bob", "carol"):
        wait_until(lambda s=slave: exchange(s))
        for _ in range(5):
            exchange(slave)

    wait_until(lambda: all(b"qkdl_performance" in r.seen and b"slot_report" in r.seen for r in recorders.values()))
    made = qc_output(network.directory)
    seen = {name: bytes(recorder.seen) for name, recorder in recorders.items()}
    assert b"sdqkdn_application_new" in seen["a"]
    assert b"virt_next_hop" in seen["b"]
    assert len(set(keys)) >= 10
    for where, text in seen.items():
        for secret in (*keys, *made):
            assert not [f for f in forms(secret) if f in text], f"key material in the messages of {where}"


def qc_output(directory: Path) -> list[bytes]:
    """A piece of every block that the QCs made."""
    found: list[bytes] = []
    events = [e for e in journal.read(directory / "qcs" / "journal.jsonl") if e["event"] == "block"]
    for qc, _, _ in LINKS:
        generator = random.Random(f"{SEED}/{qc}")
        for event in (e for e in events if e["qc"] == qc):
            assert generator.randint(2000, 2000) == event["n_bytes"]
            block = generator.randbytes(event["n_bytes"])
            found += [block[i : i + 16] for i in range(0, len(block), 16)]
    return found
