"""Everything that passes between our controller and our agents, recorded in the clear: never a key in it.

Proxies with the nodes' names stand between them and write down both directions. They can because the test owns the CA.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtls.identity import Identity, Role
from testbed.network.loopback import LOOPBACK
from tests.service.gs015.conftest import LINKS, Network
from tests.support.gs015_client import N, Restconf
from tests.support.leaks import made_by_seed, shown
from tests.support.waiting import until

SEED = 15
_CLOSING_S = 10.0


class Recorder:
    """A proxy before the agent of `node`, with that node's name and, towards the node, the controller's."""

    def __init__(self, network: Network, node: str) -> None:
        self._directions: list[bytearray] = []
        self._sides: list[asyncio.StreamWriter] = []
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

    @property
    def seen(self) -> bytes:
        """All that passed, one direction of one connection after the other, so that nothing is torn apart."""
        return b"\n".join(map(bytes, list(self._directions)))

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
        # asyncio closes sockets in the loop's next turns.
        closing = asyncio.gather(*(side.wait_closed() for side in self._sides), return_exceptions=True)
        await asyncio.wait_for(closing, _CLOSING_S)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._sides.append(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection(
                LOOPBACK, self._agent, ssl=self._client, server_hostname=self._to.dns
            )
        except OSError:
            writer.close()
            return
        self._sides.append(far_writer)
        pumps = [asyncio.ensure_future(p) for p in (self._pump(reader, far_writer), self._pump(far_reader, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            for side in (writer, far_writer):
                side.close()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        passed = bytearray()
        self._directions.append(passed)
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                passed += data
                target.write(data)
                await target.drain()


class Recorded(Network):
    """A network with a controller of ours."""

    def close_sessions(self) -> None:
        """The operator ends all that are open."""
        operator, to = self.caller(Role.OPERATOR, "op"), Identity(Role.CONTROLLER, "ctl")
        place = f"https://{LOOPBACK}:{self.controller_port}/qkd/v1/key_sessions"
        for session in operator.request("GET", place, to=to).body["key_sessions"]:
            assert operator.request("DELETE", f"{place}/{session['ksid']}", to=to).ok
        operator.close()


@pytest.fixture(params=["qkp", "parallel", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("basic", "otp"))])
def recorded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Recorded, dict[str, Recorder]]]:
    """A network whose controller reaches the agents by way of recorders."""
    network = Recorded(tmp_path)
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


def test_no_key_and_no_qc_output_in_any_message(recorded):
    """Sessions over one hop and two are opened, used, reported on and closed meanwhile."""
    network, recorders = recorded
    keys: list[bytes] = []

    def exchange(slave: str) -> bool:
        given = network.enc_keys("alice", slave)
        fetched = network.dec_keys(slave, "alice", given) if given.ok else given
        if not fetched.ok:  # there may be too little yet, or this machine is slow and it is too old already
            return False
        assert fetched.body == given.body
        keys.append(base64.b64decode(given.body["keys"][0]["key"]))
        return True

    for slave in ("bob", "carol"):
        for _ in range(6):
            until(lambda s=slave: exchange(s))
    until(lambda: all(b"qkdl_performance" in r.seen and b"slot_report" in r.seen for r in recorders.values()))
    network.close_sessions()
    canaries = say_canaries(network, recorders["a"])

    seen = {name: recorder.seen for name, recorder in recorders.items()}
    assert all(b"DELETE /restconf/data" in text for text in seen.values())
    assert b"sdqkdn_application_new" in seen["a"]
    assert b"virt_next_hop" in seen["b"]
    assert [bool(shown(seen["a"], [canary])) for canary in canaries] == [True, True], "the search finds what is there"
    rates = {qc: (2000, 2000) for qc, _, _ in LINKS}
    blocks = made_by_seed(network.directory / "qcs" / "journal.jsonl", SEED, rates)
    assert blocks
    secrets = [*keys, *blocks]
    assert len(set(keys)) == 12
    assert {where: shown(text, secrets) for where, text in seen.items()} == {"a": [], "b": [], "c": []}


def say_canaries(network: Recorded, recorder: Recorder) -> tuple[bytes, bytes]:
    """Two numbers that were sent by way of the recorder as a key might be: in base64 and in hex."""
    canaries = os.urandom(16), os.urandom(16)
    client = Restconf(network.issue(Role.CONTROLLER, "other"), recorder.url, Identity(Role.NODE, "a"))
    try:
        for leaf, text in (("qkdn_location_id", base64.b64encode(canaries[0]).decode()),
                           ("qkdn_version", canaries[1].hex())):  # fmt: skip
            assert client.call("PUT", f"{N}/{leaf}", {f"etsi-qkd-sdn-node:{leaf}": text}).status == 204
    finally:
        client.close()
    return canaries
