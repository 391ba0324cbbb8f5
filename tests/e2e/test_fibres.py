"""Fibres do what is configured of each of their directions, change while the network runs, and go dark at both ends.

All classical traffic of this network takes the short fibre, so that the crooked one carries the tests' frames alone.
Floors of delay, loss and bandwidth hold on any machine, however busy: frames are never early. Shares of lost frames are
given room for an error probability below 1e-9. What is measured is in docs/shaping.md, not here.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.running import PYTHON, Running
from tests.support.waiting import until

TOPOLOGY = """
name: crooked
nodes: [{name: alice}, {name: bob}]
links:
  - {a: alice, b: bob, delay_ms: 0.1, name: short}
  - a: alice
    b: bob
    name: crooked
    delay_ms: 5
    a_to_b: {delay_ms: 30, loss_percent: 20, bandwidth_mbit: 2}
saes: [{name: mail, node: alice}, {name: backup, node: bob}]
"""
# A clock that reads in nanoseconds, and netem's arithmetic in microseconds.
ROUNDING_MS = 0.01
# One train of frames, on the switches' side of a fibre; see testbed.fibres.probe.
TRAIN = (
    "import json, sys\n"
    "from testbed.fibres.probe import send_train\n"
    "sender, receiver, frames, n_bytes, gap_s = sys.argv[1:]\n"
    "t = send_train(sender, receiver, frames=int(frames), frame_bytes=int(n_bytes), gap_s=float(gap_s), longest_s=1)\n"
    "print(json.dumps([t.sent_ns, t.arrived_ns]))"
)


@pytest.fixture(scope="module")
def crooked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two fibres between the same datacenters, one of them crooked."""
    directory = tmp_path_factory.mktemp("fibres")
    (directory / "crooked.yaml").write_text(TOPOLOGY)
    running = Running(directory / "run", "--topology", directory / "crooked.yaml")
    try:
        running.wait_up()
        yield running
    finally:
        running.stop()


class Train:
    """Frames sent over the crooked fibre, from the switch of one datacenter to the other's."""

    def __init__(self, run: Running, source: str, frames: int, n_bytes: int = 64, gap_s: float = 0.001) -> None:
        arguments = [*ports(run, "crooked", source), str(frames), str(n_bytes), str(gap_s)]
        argv = run.fabric(str(PYTHON), "-P", "-c", TRAIN, *arguments)
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def arrive(self) -> Train:
        """Itself, once all frames have arrived that will."""
        out, error = self._process.communicate(timeout=120)
        assert self._process.returncode == 0, error
        self.sent_ns, self.arrived_ns = json.loads(out)
        self.found_ns = [ns for ns in self.arrived_ns if ns is not None]
        pairs = zip(self.sent_ns, self.arrived_ns, strict=True)
        self.delays_ms = [(arrived - sent) / 1e6 for sent, arrived in pairs if arrived is not None]
        self.lost = len(self.sent_ns) - len(self.found_ns)
        return self

    @property
    def in_order(self) -> bool:
        """Whether no frame overtook another."""
        return self.found_ns == sorted(self.found_ns)


def ports(run: Running, fibre: str, source: str = "alice") -> tuple[str, str]:
    """The switch ports at the ends of a fibre, the one at `source` first."""
    number = ["short", "crooked"].index(fibre)
    links = [
        (p["interface"], p["peer_interface"])
        for p in run.config("controller")["openflow"]["fabric"]["switches"][0 if source == "alice" else 1]["ports"]
    ]
    return links[number]


def lit(run: Running, port: str) -> bool:
    """Whether that port sees light, by its flags."""
    argv = run.fabric("ip", "-json", "link", "show", port)
    shown = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    return "LOWER_UP" in shown[0]["flags"]


def test_each_direction_is_shaped_on_its_own(crooked):
    """As the file says: late one way, less late the other; lossy and slow one way alone."""
    there, back = (Train(crooked, end, 2000, gap_s=0.0005).arrive() for end in ("alice", "bob"))

    assert min(there.delays_ms) >= 30 - ROUNDING_MS
    assert 5 - ROUNDING_MS <= min(back.delays_ms) < 30
    assert 0.14 < there.lost / 2000 < 0.26, "20 % and 6.7 times the standard deviation"
    assert back.lost == 0
    assert there.in_order
    assert back.in_order


def test_no_more_passes_than_the_bandwidth(crooked):
    """Each frame of 1514 bytes takes 6.056 ms of a line of 2 Mbit/s, and other lines are as fast as ever."""
    there = Train(crooked, "alice", 100, 1514, 0).arrive()
    back = Train(crooked, "bob", 100, 1514, 0).arrive()
    gaps_ms = (there.found_ns[-1] - there.found_ns[0]) / 1e6 / (len(there.found_ns) - 1)

    assert len(there.found_ns) > 50
    assert 6.056 * 0.97 <= gaps_ms < 4 * 6.056, "arrivals are stamped when the machine gets to it"
    assert back.lost == 0


def test_shape_changes_while_frames_are_under_way(crooked):
    """From the command line: none is lost, none overtakes another, and those sent later are shaped anew."""
    try:
        crooked.say("qkd fibre crooked delay 400ms loss 0 bandwidth none", r"crooked +both ways +400\.000")
        train = Train(crooked, "alice", 1500)
        crooked.say("qkd fibre crooked -> bob delay 3ms jitter 2ms", r"crooked +alice -> bob +3\.000 +2\.000")
        train.arrive()
        later = Train(crooked, "alice", 300).arrive()
        back = Train(crooked, "bob", 20).arrive()
    finally:
        crooked.say("qkd fibre crooked reset", r"crooked +bob -> alice +5\.000")

    assert train.lost == later.lost == 0
    assert train.in_order
    assert later.in_order, "jitter lets no frame overtake another"
    assert min(later.delays_ms) >= 1 - ROUNDING_MS
    assert min(later.delays_ms) < 300, "the old delay is gone"
    assert max(later.delays_ms) - min(later.delays_ms) > 2, "of the 4 ms that jitter spreads delays over"
    assert min(back.delays_ms) >= 400 - ROUNDING_MS, "the other direction keeps its own"
    assert min(Train(crooked, "alice", 50).arrive().delays_ms) >= 30 - ROUNDING_MS


def test_fibre_is_shown_and_measured(crooked):
    """Both directions as configured, up or down, and figures of what they really do."""
    text = crooked.say("qkd fibre alice bob", r"crooked is up")
    assert re.search(r"short +both ways +0\.100 +0\.000 +0\.000 +-", text)
    assert re.search(r"crooked +alice -> bob +30\.000 +0\.000 +20\.000 +2\.000", text)

    text = crooked.say("qkd fibre short -> bob measure", r"loss +% .*\n")
    found = dict(re.findall(r"alice -> bob +(\w+) +\S+ +[\d.]+ +([\d.]+)", text))
    assert float(found["delay"]) >= 0.1 - ROUNDING_MS
    assert float(found["loss"]) == 0


def test_wrong_change_says_so_and_leaves_the_shape(crooked):
    """In one line that names the member."""
    crooked.say("qkd fibre crooked delay 61s", r"delay_ms: expected a number from 0 to 60000\n")
    crooked.say("qkd fibre alice bob loss 1%", r"several fibres join alice and bob: take one by its name")
    crooked.say("qkd fibre alice carol", r"no datacenter 'carol': there are alice, bob\n")

    crooked.say("qkd fibres", r"crooked +alice -> bob +30\.000 +0\.000 +20\.000 +2\.000")


@pytest.mark.parametrize("how", ["the fibre, by datacenters", "the fibre, by switches", "one end, by hand"])
def test_both_ends_of_a_cut_fibre_see_it(crooked, how):
    """Mininet's `link A B down`, or one interface alone: by the ports' flags, and as both switches tell the controller.

    `up` heals, and the fibre is shaped as before.
    """
    a, b = ports(crooked, "crooked")
    end = ["alice", "bob"] if "datacenters" in how else ["s1", "s2"]

    def switch(state: str) -> None:
        if "hand" in how:
            subprocess.run(crooked.fabric("ip", "link", "set", a, state), check=True)
        else:
            crooked.cli(f"link {' '.join(end)} {state}")

    def dark() -> str:
        return re.search(r"fibres +(.*)\n", crooked.say("qkd status", r"fibres +.*\n"))[1]

    switch("down")
    try:
        assert until(lambda: not lit(crooked, a) and not lit(crooked, b))
        assert until(lambda: f"crooked dark at {a} and {b}" in dark())
    finally:
        switch("up")
    assert until(lambda: lit(crooked, a) and lit(crooked, b))
    assert until(lambda: dark() == "all lit")
    assert min(Train(crooked, "bob", 20).arrive().delays_ms) >= 5 - ROUNDING_MS
    assert min(Train(crooked, "alice", 50).arrive().delays_ms) >= 30 - ROUNDING_MS
