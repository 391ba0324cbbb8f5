"""The shared database is what decides: a real PostgreSQL, asked by the nodes' own client, alone and in crowds."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import random
import re
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from decisions.modes import BASIC, RELAYED, Mode
from decisions.ranges import Allocation, Claim, Mark, Range, Shortage, Stream, allocate
from documents.secret import Secret
from mtls.authority import Authority
from mtls.identity import Identity, Role
from node.failures import DatabaseChanged, DatabaseRefused, DatabaseUnreachable
from node.material.blocks import Block
from node.material.key_store import KeyStore
from node.material.key_stream import Outdated
from node.material.shared_db import Foreign, KeyOwner, Members, NotFound, SharedDatabase, read_allocations
from node.relaying.ciphers import proof
from testbed.database.postgres import node_url
from testbed.network.loopback import LOOPBACK, Stack
from tests.support.waiting import until

ALICE, BOB, MALLORY, CAROL = (str(uuid.UUID(int=i)) for i in range(1, 5))
HOMES = {ALICE: "a", BOB: "b", CAROL: "c", MALLORY: "b"}
SAES = {"a": ALICE, "b": BOB, "c": CAROL}
PATHS = ["ab", "ba", "bc", "cb", "ac", "ca", "abc", "acb", "bac", "bca", "cab", "cba"]
KSID = str(uuid.UUID(int=9))
KEY_BYTES = 32
EPOCH = 5
DIGEST = bytes(16)
NUMBERS = itertools.count(1)  # of reports: that of a later one is greater


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A network of which only the shared database runs."""
    stack = Stack(tmp_path_factory.mktemp("shared-db"))
    try:
        stack.start_postgres()
        yield stack
    finally:
        stack.stop()


@dataclass(frozen=True, slots=True)
class Ring:
    """Three nodes and the QCs between them; the QCs' names are this test's own."""

    nodes: dict[str, SharedDatabase]
    qcs: dict[str, tuple[str, str]]

    def along(self, path: str) -> list[str]:
        """The QCs of a path."""
        return [qc for hop in itertools.pairwise(path) for qc, ends in self.qcs.items() if set(ends) == set(hop)]

    def allocate(
        self, path: str, n_bytes: int, *, request: str | None = None, mode: Mode = RELAYED
    ) -> Allocation | Shortage:
        """What the first node of a path gets for a key of `n_bytes`."""
        owner = KeyOwner(KSID, SAES[path[0]], SAES[path[-1]], path[-1])
        made = request or new_request()
        key_id = str(uuid.uuid5(uuid.UUID(made), "key"))
        needs = mode.needs(self.along(path), n_bytes, 1)
        return self.nodes[path[0]].allocate(made, needs, key_ids=[key_id], key_bytes=n_bytes, owner=owner)

    def ranges(
        self, path: str, n_bytes: int, *, request: str | None = None, mode: Mode = RELAYED
    ) -> list[Range] | Shortage:
        """The ranges of the same, or the shortage."""
        found = self.allocate(path, n_bytes, request=request, mode=mode)
        return found if isinstance(found, Shortage) else list(found.ranges)

    def enter(self) -> None:
        """All nodes begin to speak to the server that is there now."""
        for name, node in self.nodes.items():
            node.enter({qc: next(n for n in ends if n != name) for qc, ends in self.qcs.items() if name in ends})

    def fill(self, *blocks: int) -> None:
        """All ends say that they hold blocks of their QCs up to these bytes."""
        for name, node in self.nodes.items():
            node.report([claim(qc, *blocks) for qc, ends in self.qcs.items() if name in ends], next(NUMBERS))


@pytest.fixture(scope="module")
def nodes(stack: Stack) -> Iterator[dict[str, SharedDatabase]]:
    """Nodes a, b, c with an SAE at each and two at b."""
    stack.cluster.admit(stack.schema, Members("abc", HOMES, {}))
    found = {}
    for name in "abc":
        url = node_url(name, stack.issue(Role.NODE, name), stack.database, LOOPBACK, stack.database_port)
        found[name] = SharedDatabase(url, stack.schema, name)
        found[name].open()
    try:
        yield found
    finally:
        for node in found.values():
            node.close()


@pytest.fixture
def ring(stack: Stack, nodes: dict[str, SharedDatabase]) -> Ring:
    """The nodes, each pair joined by a QC that nobody has used before."""
    prefix = uuid.uuid4().hex[:8]
    qcs = {f"{prefix}-{a}-{b}/1": (a, b) for a, b in (("a", "b"), ("b", "c"), ("a", "c"))}
    stack.cluster.admit(stack.schema, Members("abc", HOMES, qcs))
    made = Ring(nodes, qcs)
    made.enter()
    return made


def claim(qc: str, *ends: int, epoch: int = EPOCH) -> Claim:
    """What a node's store would say: blocks up to these ends, the first of which begins at 0."""
    marks = [Mark(start, end, DIGEST) for start, end in itertools.pairwise((0, *ends))]
    return Claim(qc, epoch, 0, 0, marks)


def new_request() -> str:
    """The ID of a new request."""
    return str(uuid.uuid4())


def at_once(calls: list[Callable[[], object]], threads: int = 12) -> list[object]:
    """What the calls return, made by that many threads; an exception of any of them is raised."""
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


class Device:
    """Makes blocks for both ends, some of which get lost or differ, and begins anew now and then; what each end has."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._epochs = itertools.count(1)
        self.begin()

    def begin(self) -> None:
        """A new epoch, or (what no device should do) one of before."""
        self.epoch = next(self._epochs) if self._rng.random() < 0.7 else 1
        self.head = 0
        self.ends: tuple[list[Mark], list[Mark]] = [], []

    def run(self) -> None:
        """Some blocks."""
        if self._rng.random() < 0.02:
            self.begin()
        for _ in range(self._rng.randint(1, 4)):
            mark = Mark(self.head, self.head + self._rng.randint(1, 60), self._rng.randbytes(16))
            self.head = mark.end + self._rng.choice((0, 0, 0, 0, 0, 7))
            for marks in self.ends:
                dice = self._rng.random()
                if dice < 0.03:
                    marks.append(Mark(mark.start, mark.end - self._rng.randint(0, 1) or mark.end, DIGEST))
                elif dice < 0.97:
                    marks.append(mark)

    def claim(self, qc: str, by_a: bool, known: tuple[int, int]) -> Claim:
        """What that end says; it may have heard of nothing yet, or believe too much to be known."""
        marks = self.ends[0 if by_a else 1]
        after = known[1] if known[0] == self.epoch else 0
        after = self._rng.choice((after, after, after, after, 0, after + 30))
        floor = max(0, self.head - self._rng.randint(200, 900))
        return Claim(qc, self.epoch, floor, after, [m for m in marks if m.end > after and m.end > m.start])


@pytest.mark.parametrize("seed", range(3))
def test_decides_as_the_rule_says(ring, seed):
    """Whatever is reported and asked, from whichever end: the same ranges, the same shortage as decisions/ranges.py."""
    rng = random.Random(seed)
    streams = dict.fromkeys(ring.qcs, Stream())
    devices = {qc: Device(rng) for qc in ring.qcs}
    known: dict[tuple[str, str], tuple[int, int]] = {}
    told = 0
    given: dict[str, tuple[str, int, Mode, list[Range]]] = {}
    for name, node in ring.nodes.items():
        node.report([Claim(qc, 0, 0) for qc, ends in ring.qcs.items() if name in ends], next(NUMBERS))
    refused = 0
    for _ in range(300):
        name, node = rng.choice(list(ring.nodes.items()))
        dice = rng.random()
        if dice < 0.4:
            own = [qc for qc, ends in ring.qcs.items() if name in ends]
            claims = []
            for qc in rng.sample(own, rng.randint(1, len(own))):
                by_a = name == ring.qcs[qc][0]
                devices[qc].run()
                claims.append(devices[qc].claim(qc, by_a, known.get((name, qc), (0, 0))))
                streams[qc] = streams[qc].reported(claims[-1], by_a=by_a)
            answers = node.report(claims, next(NUMBERS))
            for said in claims:
                stream, answer = streams[said.qc], answers[said.qc]
                end = stream.a if name == ring.qcs[said.qc][0] else stream.b
                assert answer.known == stream.known(end)
                assert {(r.start, r.end) for r in answer.differing} == {(m.start, m.end) for m in end.differing}
                known[name, said.qc] = said.epoch, answer.known
                told += len(answer.differing)
        elif dice < 0.45 and given:
            again, (path, n_bytes, mode, ranges) = rng.choice(list(given.items()))
            assert ring.ranges(path, n_bytes, request=again, mode=mode) == ranges
        else:
            path, mode, n_bytes = rng.choice(PATHS), rng.choice([BASIC, RELAYED]), rng.randint(1, 60)
            qcs = ring.along(path)
            if rng.random() < 0.1:  # exactly what is there, or a byte too much
                n_bytes = max(1, min(streams[qc].available for qc in qcs) + rng.randint(0, 1))
            expected, new = allocate(streams, mode.needs(qcs, n_bytes, 1)), new_request()
            found = ring.ranges(path, n_bytes, request=new, mode=mode)
            if isinstance(expected, Shortage):
                assert found == expected
                refused += 1
            else:
                streams, ranges = streams | expected[0], expected[1]
                assert found == ranges
                given[new] = path, n_bytes, mode, ranges
        assert node.available(list(ring.qcs)) == {qc: stream.available for qc, stream in streams.items()}
    assert len(given) > 30
    assert refused > 30
    assert told > 5


def test_a_crowd_on_crossing_paths_gets_ranges_of_its_own(ring, stack):
    """All nodes ask at once for the QCs in every order while heads grow: no byte twice, none lost, no deadlock."""
    rng = random.Random(1)
    ring.fill(2000)

    def ask(path: str, n_bytes: int) -> Callable[[], object]:
        return lambda: ring.ranges(path, n_bytes, mode=rng.choice([BASIC, RELAYED]))

    def report(name: str, n_blocks: int, *, turned: bool) -> Callable[[], object]:
        blocks = range(2000, 2000 + 10 * n_blocks + 1, 10)
        own = [claim(qc, *blocks) for qc, ends in ring.qcs.items() if name in ends]
        number = next(NUMBERS)  # of when it is made; on their way they overtake each other
        return lambda: ring.nodes[name].report(own[::-1] if turned else own, number)

    calls = [ask(path, rng.randint(1, 30)) for path in PATHS * 40]
    calls += [report(name, i, turned=i % 2 == 0) for i in range(100) for name in "abc"]
    rng.shuffle(calls)
    answers = at_once(calls, threads=24)

    ranges = sorted((r for a in answers if isinstance(a, list) for r in a), key=lambda r: (r.qc, r.start))
    assert any(isinstance(a, Shortage) for a in answers)
    for qc in ring.qcs:
        mine = [r for r in ranges if r.qc == qc]
        # Nothing expired here, so they must also leave no hole: bytes of a refused request would be lost for ever.
        assert [r.start for r in mine] == [0, *(r.end for r in mine[:-1])]
        assert mine[-1].end <= 2990
        assert ring.nodes["a"].available([qc]) == {qc: 2990 - mine[-1].end}
    # The client would hide a deadlock by trying again; the server tells.
    assert "deadlock" not in stack.postgres.log.read_text()


def test_a_request_repeated_by_a_crowd_is_served_once(ring):
    """Its answer was lost and it comes again, even at the same moment: one allocation, the same ranges for all."""
    ring.fill(1000)
    again = new_request()

    answers = at_once([lambda: ring.ranges("bac", 100, request=again)] * 40)

    first, second = ring.along("bac")
    assert answers == [[Range(first, 0, 100, EPOCH), Range(second, 0, 100, EPOCH)]] * 40
    assert ring.nodes["c"].available([first, second]) == {first: 900, second: 900}


class Wire:
    """Carries connections to a port; those that were there when it was cut carry what they have once it is whole."""

    def __init__(self, port: int) -> None:
        self._server = socket.create_server((LOOPBACK, 0))
        self.port = self._server.getsockname()[1]
        self._target = port
        self._whole: list[threading.Event] = []
        self._sockets = [self._server]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def cut(self) -> None:
        """For the connections that are there."""
        for whole in self._whole:
            whole.clear()

    def mend(self) -> None:
        """For all."""
        for whole in self._whole:
            whole.set()

    def close(self) -> None:
        """End it."""
        self.mend()
        for end in self._sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in self._sockets:
            end.close()

    def _start(self, step: Callable[..., None], *given: object) -> None:
        self._threads.append(threading.Thread(target=step, args=given, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection((LOOPBACK, self._target))
                whole = threading.Event()
                whole.set()
                self._whole.append(whole)
                self._sockets += [near, far]
                for source, sink in ((near, far), (far, near)):
                    self._start(self._carry, source, sink, whole)

    @staticmethod
    def _carry(source: socket.socket, sink: socket.socket, whole: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                whole.wait()
                sink.sendall(data)
            whole.wait()
            sink.shutdown(socket.SHUT_WR)


def test_shortage_at_a_second_try_is_in_doubt_since_the_first_may_be_granted_later(ring, stack):
    """What is sent comes late, when there are bytes again. The database knows what that has cost."""
    wire = Wire(stack.database_port)
    url = node_url("a", stack.issue(Role.NODE, "a"), stack.database, LOOPBACK, wire.port)
    behind = Ring({**ring.nodes, "a": SharedDatabase(url, stack.schema, "a")}, ring.qcs)
    node, request = behind.nodes["a"], new_request()
    node.open()
    try:
        behind.enter()
        behind.fill(100)
        assert behind.allocate("ab", 500) == Shortage(ring.along("ab")[0], 400)
        wire.cut()

        found = behind.allocate("ab", 500, request=request)
        ring.fill(100, 1000)
        wire.mend()

        assert found == Shortage(ring.along("ab")[0], 400, in_doubt=True)
        key_id = str(uuid.uuid5(uuid.UUID(request), "key"))
        cost = until(lambda: ring.nodes["a"].cost([key_id]))
        assert cost == [(key_id, request, Range(ring.along("ab")[0], 0, 500, EPOCH))]
    finally:
        node.close()
        wire.close()


def test_allocations_survive_a_crash_of_the_database(ring, stack):
    """What was given before the server was killed is not given again, and a repeated request gets its old answer."""
    ring.fill(1000)
    (qc,), before = ring.along("ab"), new_request()
    given = ring.ranges("ab", 100, request=before)

    stack.postgres.kill()
    stack.start_postgres()
    ring.enter()
    ring.fill(1000)

    assert ring.ranges("ab", 100, request=before) == given
    assert ring.ranges("ba", 100) == [Range(qc, 100, 200, EPOCH)]


@dataclass(frozen=True, slots=True)
class End:
    """Node `name` with a local database, as one end of `qc`."""

    name: str
    qc: str
    shared: SharedDatabase
    store: KeyStore

    def report(self) -> None:
        """Enter the server that is there now, and say to it what is held here."""
        server, _ = self.shared.enter({self.qc: "ab".replace(self.name, "")})
        self.store.follow(server)
        self.shared.report(self.store.claims({}), self.store.number_report())


@pytest.fixture
def ends(ring: Ring, tmp_path: Path) -> Iterator[tuple[End, End]]:
    """Both ends of the QC a-b, which hold the same 1000 bytes and have said so."""
    (qc,) = ring.along("ab")
    stores = [KeyStore(tmp_path / f"{name}.db", tmp_path / f"{name}.key", ttl_slots=600) for name in "ab"]
    found = [End(name, qc, ring.nodes[name], store) for name, store in zip("ab", stores, strict=True)]
    for end in found:
        end.store.store(Block(qc, 0, 1, 0, Secret(bytes(1000)), epoch=EPOCH, made=end.store.clock()), DIGEST)
        end.report()
    yield found[0], found[1]
    for store in stores:
        store.close()


def test_what_a_server_lost_is_of_use_to_nobody_beside_what_it_gives_again(ring, stack, ends):
    """An older copy of its data is put back: ranges wait for the reports of both ends, and those follow it alone.

    What an end took before is behind its floor; what it did not take by then it can take no more.
    """
    a, b = ends
    data, copy = stack.cluster.directory / "data", stack.cluster.directory / "copy"
    stack.postgres.stop()
    subprocess.run(["cp", "-a", data, copy], check=True)
    stack.start_postgres()
    a.report()
    b.report()
    used, waiting = ring.allocate("ab", 100), ring.allocate("ab", 100)
    assert a.store.take(used.ranges, used.request, used.server)
    stack.postgres.kill()
    data.rename(stack.cluster.directory / "lost")
    copy.rename(data)
    stack.start_postgres()

    for reporting in ends:
        for path in ("ab", "ba"):
            with pytest.raises(DatabaseChanged):
                ring.allocate(path, 100)
        assert ring.nodes["c"].available([a.qc]) == {a.qc: 0}
        reporting.report()

    assert ring.ranges("ba", 100) == list(waiting.ranges), "those of them that nobody has taken"
    for end in ends:
        with pytest.raises(Outdated):
            end.store.take(waiting.ranges, waiting.request, waiting.server)


def test_report_that_was_overtaken_counts_for_nothing(ring):
    """It may name an epoch that its node has left behind since."""
    (qc,) = ring.along("ab")
    first, second = next(NUMBERS), next(NUMBERS)
    for name in "ab":
        ring.nodes[name].report([claim(qc, 100, epoch=8)], second)

    assert ring.nodes["a"].report([claim(qc, 100, epoch=7)], first) == {}

    assert ring.ranges("ab", 100) == [Range(qc, 0, 100, 8)]


def test_node_that_holds_nothing_yet_may_say_so(ring):
    """It has had no block of any QC."""
    ring.nodes["a"].report([], next(NUMBERS))


def make_keys(ring: Ring, number: int) -> tuple[list[str], str, str]:
    """(key IDs, request, QC) of as many keys on the QC a-b, all of one request."""
    (qc,), key_ids, made = ring.along("ab"), [str(uuid.uuid4()) for _ in range(number)], new_request()
    owner, needs = KeyOwner(KSID, ALICE, BOB, "b"), [(qc, KEY_BYTES * number)]
    answer = ring.nodes["a"].allocate(made, needs, key_ids=key_ids, key_bytes=KEY_BYTES, owner=owner)
    assert answer.ranges == [Range(qc, 0, KEY_BYTES * number, EPOCH)]
    return key_ids, made, qc


def fetch(ring: Ring, key_ids: list[str], *, node: str = "b", master: str = ALICE, slave: str = BOB):
    """What the slave's KME gets: instructions, or the refusal."""
    try:
        return ring.nodes[node].deliver(master, slave, key_ids)[0]
    except (Foreign, NotFound) as refusal:
        return type(refusal)


def test_instruction_says_how_old_its_key_is(ring):
    """As a duration: no clock is common to nodes and database."""
    ring.fill(1000)
    begun = time.monotonic()
    key_ids, *_ = make_keys(ring, 2)

    ages = [i.age_s for i in [*fetch(ring, key_ids)]]

    assert all(0 < age_s <= time.monotonic() - begun + 0.001 for age_s in ages)


def test_an_instruction_is_delivered_once_whoever_races(ring):
    """Of many that fetch the same keys at the same moment one gets them; the others are told that there are none."""
    ring.fill(1000)
    key_ids, made, qc = make_keys(ring, 3)

    # Also one by one and in other orders: keys of one request go together.
    asked = [key_ids, key_ids[::-1], key_ids[:1], key_ids[1:2], key_ids[2:]] * 8
    answers = at_once([lambda ids=ids: fetch(ring, ids) for ids in asked])

    (ids, got), *more = [(ids, a) for ids, a in zip(asked, answers, strict=True) if a is not NotFound]
    assert more == []
    assert {(i.key_id, i.where.start, i.asked) for i in got} == {
        (key_id, KEY_BYTES * n, key_id in ids) for n, key_id in enumerate(key_ids)
    }
    assert {(i.request, i.ksid, i.where.qc, len(i.where)) for i in got} == {(made, KSID, qc, KEY_BYTES)}


def test_a_refused_fetch_delivers_nothing(ring):
    """Another SAE's key is Foreign even beside an unknown one; else what cannot be had all together is NotFound."""
    ring.fill(1000)
    key_ids, _, _ = make_keys(ring, 2)
    unknown = str(uuid.uuid4())

    assert fetch(ring, key_ids, slave=MALLORY) is Foreign
    assert fetch(ring, [unknown, key_ids[0]], slave=MALLORY) is Foreign
    assert fetch(ring, [unknown, key_ids[0]]) is NotFound
    assert fetch(ring, [key_ids[0], key_ids[0]]) is NotFound
    assert fetch(ring, key_ids, master=MALLORY) is NotFound
    assert fetch(ring, key_ids, node="c", slave=CAROL) is Foreign

    assert {i.key_id for i in fetch(ring, key_ids)} == set(key_ids)
    assert fetch(ring, key_ids, slave=MALLORY) is Foreign
    assert fetch(ring, key_ids) is NotFound


def test_a_repeated_delivery_gets_the_same_answer(ring, stack):
    """Its answer was lost on the way and the same node asks again under the same ID; under another it gets nothing."""
    ring.fill(1000)
    key_ids, _, _ = make_keys(ring, 2)
    call = "SELECT verdict, key_id FROM qkd_deliver(%s, 'b', %s, %s, %s, %s::uuid[])"

    with as_node(stack, "b") as connection:
        this, other, server = uuid.uuid4(), uuid.uuid4(), server_of(connection, "b")
        first, again, late = (
            connection.execute(call, (delivery, server, ALICE, BOB, key_ids[:1])).fetchall()
            for delivery in (this, this, other)
        )
    assert sorted(first) == sorted(again) == sorted([("ok", uuid.UUID(key_ids[0])), ("ahead", uuid.UUID(key_ids[1]))])
    assert late == [("missing", None)]


def test_what_was_collected_is_given_again_under_the_same_name_and_no_other(ring):
    """A node that died before it kept it asks so; what was made since comes along."""
    ring.fill(1000)
    before, _, _ = make_keys(ring, 2)
    name = str(uuid.uuid4())

    assert {i.key_id for i in ring.nodes["b"].collect(name)[0]} >= {*before}
    ring.allocate("ab", KEY_BYTES)
    assert {i.key_id for i in ring.nodes["b"].collect(str(uuid.uuid4()))[0]}.isdisjoint(before)
    assert {i.key_id for i in ring.nodes["b"].collect(name)[0]} >= {*before}
    assert {i.key_id for i in ring.nodes["a"].collect(name)[0]}.isdisjoint(before), "another node"


def test_no_call_reads_the_record_of_all_keys(ring, stack):
    """However many there are by now, and whatever PostgreSQL thinks: it counts them now and then only."""
    ring.fill(1 << 20)
    with stack.cluster.admin_url() as url, psycopg.connect(url, autocommit=True) as admin:

        def scans() -> tuple[int, int]:
            """Of the tables that only grow, from end to end and by an index, as far as all have told by now."""
            names = ["key", "allocation"]
            query = "SELECT sum(seq_scan)::int, sum(idx_scan)::int FROM pg_stat_user_tables WHERE relname = ANY (%s)"
            ((whole, by_index),) = admin.execute(query, (names,)).fetchall()
            return whole, by_index

        def work() -> None:
            """Each call that asks for keys or allocations, once."""
            request = new_request()
            assert isinstance(ring.allocate("ab", KEY_BYTES, request=request, mode=BASIC), Allocation)
            key_id = str(uuid.uuid5(uuid.UUID(request), "key"))
            ring.nodes["b"].deliver(ALICE, BOB, [key_id])
            ring.nodes["b"].cost([key_id])
            ring.nodes["b"].collect(str(uuid.uuid4()))

        whole, by_index = scans()
        for _ in range(20):
            work()
        until(lambda: work() or scans()[1] >= by_index + 60, else_tell=scans)

        assert scans()[0] == whole


POISONS = ["end_at = start_at - 1", "start_at = -1", "start_at = NULL", "epoch = NULL", "made = 'infinity'"]


def poison(stack: Stack, key_id: str, change: str) -> None:
    """Have somebody tamper with what the database itself says of a key."""
    with stack.cluster.admin_url() as url, psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"UPDATE {stack.schema}.key SET {change} WHERE key_id = %s", (key_id,))  # noqa: S608


@pytest.mark.parametrize("change", POISONS)
def test_an_instruction_that_nobody_can_follow_loses_no_other(ring, stack, caplog, change):
    """Of those that nobody has asked for; the lost one is named, and what it cost can be asked for."""
    ring.fill(1000)
    (bad, good), request, qc = make_keys(ring, 2)
    poison(stack, bad, change)

    found, lost = ring.nodes["b"].collect(str(uuid.uuid4()))

    assert good in {i.key_id for i in found}
    assert lost == [bad]
    assert bad in caplog.text
    ((_, of, where),) = ring.nodes["b"].cost([bad])
    assert (of, where.qc, len(where)) == (request, qc, KEY_BYTES)


@pytest.mark.parametrize("change", POISONS)
def test_an_instruction_that_nobody_can_follow_loses_no_other_that_was_asked_for_with_it(ring, stack, change):
    """All of them count as delivered from then on, those that were made with it, too."""
    ring.fill(1000)
    (bad, good, third), _, _ = make_keys(ring, 3)
    poison(stack, bad, change)

    found, lost = ring.nodes["b"].deliver(ALICE, BOB, [bad, good])

    assert {i.key_id: i.asked for i in found} == {good: True, third: False}
    assert lost == [bad]


@pytest.mark.parametrize("change", ["end_at = start_at - 1", "end_at = end_at + 1", "qc = 'nowhere'", "epoch = NULL"])
def test_an_allocation_that_makes_no_sense_is_none(ring, stack, change):
    """Asked for again, it is not what it was: no key is made of it."""
    ring.fill(1000)
    made = new_request()
    assert ring.ranges("ab", 16, request=made)
    with stack.cluster.admin_url() as url, psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"ALTER TABLE {stack.schema}.allocation ALTER epoch DROP NOT NULL")
        admin.execute(f"UPDATE {stack.schema}.allocation SET {change} WHERE request = %s", (made,))  # noqa: S608

    with pytest.raises((DatabaseRefused, DatabaseUnreachable)):
        ring.ranges("ab", 16, request=made)


def as_node(stack: Stack, name: str = "a", **changes: str) -> psycopg.Connection:
    """A bare connection with the certificate of that node, but for `changes`."""
    stack.cluster.admit(stack.schema, Members("ab", {}, {}))
    url = node_url(name, stack.issue(Role.NODE, name), stack.database, LOOPBACK, stack.database_port)
    options = {"options": f"-c search_path={stack.schema}", "connect_timeout": 5, "autocommit": True}
    return psycopg.connect(url, **(options | changes))


def server_of(connection: psycopg.Connection, name: str) -> str:
    """The server that this node has entered."""
    return connection.execute("SELECT server FROM qkd_enter(%s, '{}', '{}')", (name,)).fetchone()[0]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM qc",
        "SELECT * FROM allocation",
        "SELECT * FROM key",
        "SELECT * FROM node",
        "DELETE FROM allocation",
        "DELETE FROM key",
        "UPDATE qc SET tail = 0",
        "UPDATE key SET delivered = NULL",
        "SELECT qkd_proof('', '', '')",
        "INSERT INTO sae VALUES ('me', 'a')",
        "INSERT INTO qc (name, node_a, node_b) VALUES ('x', 'a', 'b')",
        "TRUNCATE allocation",
        "DROP FUNCTION qkd_report",
        "CREATE TABLE mine ()",
        "CREATE TABLE public.mine ()",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "SET ROLE postgres",
        "COPY (SELECT 1) TO PROGRAM 'true'",
    ],
)
def test_a_node_may_call_the_functions_and_nothing_else(stack, statement):
    """Tables are out of a node's reach: it cannot read others' instructions, nor give a byte out again."""
    with as_node(stack) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)


# Texts alone: a node may call no function of PostgreSQL's own, conversions among them.
VALID = {
    "p_request": "new_id", "p_node": "'a'", "p_server": "qkd_server", "p_qcs": "ARRAY[ab, bc]",
    "p_needs": "'{64, 32}'", "p_key_ids": "ARRAY[new_id, new_id]::uuid[]", "p_key_bytes": "'16'",
    "p_ksid": "new_id", "p_master": "alice", "p_slave": "carol", "p_slave_node": "'c'", "p_trace": "NULL",
}  # fmt: skip


def ask_barely(ring: Ring, stack: Stack, name: str = "a", **changes: str) -> list[tuple[object, ...]]:
    """What the database gives node a for two keys to c in basic mode, with some arguments as hostile as they like."""
    words = {
        "qkd_server": "%(server)s", "alice": f"'{ALICE}'", "bob": f"'{BOB}'", "carol": f"'{CAROL}'",
        **{path: f"'{ring.along(path)[0]}'" for path in ("ab", "bc", "ac")},
    }  # fmt: skip
    arguments = ", ".join(f"{k} => {v}" for k, v in (VALID | {"p_node": f"'{name}'"} | changes).items())
    for word, value in words.items():
        arguments = re.sub(rf"\b{word}\b", value, arguments)
    arguments = re.sub(r"\bnew_id\b", lambda _: f"'{uuid.uuid4()}'", arguments)
    with as_node(stack, name) as connection:
        call = f"SELECT * FROM qkd_allocate({arguments})"  # noqa: S608 - as hostile as the test likes
        return connection.execute(call, {"server": server_of(connection, name)}).fetchall()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"p_needs": "'{0, 0}'"}, "p_needs"),
        ({"p_needs": "'{-32, -32}'"}, "p_needs"),
        ({"p_needs": "'{64, NULL}'"}, "p_needs"),
        ({"p_needs": "'{48, 32}'"}, "p_needs"),
        ({"p_needs": "'{NULL, 64}'"}, "p_needs"),
        ({"p_needs": "'{64, 64}'"}, "p_needs"),
        ({"p_needs": "'{4611686018427387904, 4611686018427387904}'"}, "p_needs"),
        ({"p_needs": "'{64}'"}, "p_qcs"),
        ({"p_qcs": "ARRAY[ab]", "p_needs": "'{64}'", "p_slave": "bob", "p_slave_node": "'b'"}, "p_needs"),
        ({"p_qcs": "'{}'", "p_needs": "'{}'"}, "p_qcs"),
        ({"p_qcs": "NULL"}, "p_qcs"),
        ({"p_qcs": "ARRAY[ab, NULL]"}, "p_qcs: expected a path"),
        ({"p_qcs": "ARRAY[ab, ab]"}, "p_qcs: expected a path"),
        ({"p_qcs": "ARRAY[ab, ac]"}, "p_qcs: expected a path"),
        ({"p_qcs": "ARRAY[bc, ac]"}, "p_qcs: expected a path"),
        ({"p_qcs": "ARRAY['nowhere', bc]"}, "p_qcs: expected a path"),
        ({"p_slave": "bob", "p_slave_node": "'b'"}, "p_qcs: expected a path from a to b"),
        ({"p_master": "bob"}, "p_master"),
        ({"p_master": "'unknown'"}, "p_master"),
        ({"p_master": "NULL"}, "p_master"),
        ({"p_slave": "bob"}, "p_slave"),
        ({"p_key_ids": "'{}'"}, "p_key_ids"),
        ({"p_key_ids": "NULL"}, "p_key_ids"),
        ({"p_key_ids": f"'{{{KSID}, {KSID}}}'"}, "p_key_ids"),
        ({"p_key_ids": f"ARRAY[{', '.join(['new_id'] * 5000)}]::uuid[]"}, "p_key_ids"),
        ({"p_key_bytes": "'-16'"}, "p_key_ids"),
        ({"p_key_bytes": "NULL"}, "p_key_ids"),
    ],
)
def test_a_request_that_cannot_be_honest_is_refused(ring, stack, changes, words):
    """Sums, a path that joins up, owners at their nodes, bounds: the message names the argument; nothing is given."""
    ring.fill(1000)
    before = ring.nodes["a"].available(list(ring.qcs))

    with pytest.raises(psycopg.Error, match=words) as refused:
        ask_barely(ring, stack, **changes)

    assert refused.value.sqlstate == "QK001"
    assert ring.nodes["a"].available(list(ring.qcs)) == before


def test_the_same_request_is_granted_if_it_is_honest(ring, stack):
    """Which shows that the tests of hostile ones refuse what they mean to."""
    ring.fill(1000)

    assert [row[2:5] for row in ask_barely(ring, stack)] == [(0, 64, 0), (0, 32, 0)]
    assert [row[2:5] for row in ask_barely(ring, stack, p_needs="'{32, 64}'")] == [(64, 96, 0), (32, 96, 0)]


def test_nobody_allocates_by_anothers_request_or_key_id(ring, stack):
    """A request's ID is of use to its node alone, with what it asked for; a key's ID is given once."""
    ring.fill(1000)
    made = new_request()
    assert ring.ranges("ab", 16, request=made)
    key_id = uuid.uuid5(uuid.UUID(made), "key")

    with pytest.raises(DatabaseRefused, match="p_request"):
        ring.ranges("ac", 16, request=made)
    with pytest.raises(DatabaseRefused, match="p_request"):
        ring.ranges("ab", 24, request=made)
    with pytest.raises(psycopg.Error, match="p_key_ids"):
        ask_barely(ring, stack, p_key_ids=f"ARRAY['{key_id}', new_id]::uuid[]")


@pytest.mark.parametrize(
    ("qc", "epoch", "floor", "after"),
    [("bc", 5, 0, 0), ("ab", 5, 1 << 62, 0), ("ab", -1, 0, 0), ("ab", 5, -1, 0), ("ab", 5, 0, -1)],
)
def test_a_report_that_cannot_be_honest_is_refused(ring, qc, epoch, floor, after):
    """Of a QC that the node has no end of, or with a number beyond all bounds."""
    (name,) = ring.along(qc)

    with pytest.raises(DatabaseRefused, match="p_qcs"):
        ring.nodes["a"].report([Claim(name, epoch, floor, after)], next(NUMBERS))


def test_a_report_takes_no_longer_than_an_honest_one(ring):
    """Each QC once, with no more blocks than a node of ours names at a time."""
    (qc,) = ring.along("ab")

    for claims in ([claim(qc, 10)] * 2, [claim(qc, *range(1, 514))]):
        with pytest.raises(DatabaseRefused, match="at most 512 blocks"):
            ring.nodes["a"].report(claims, next(NUMBERS))

    assert ring.nodes["a"].report([claim(qc, *range(1, 513))], next(NUMBERS))[qc].known == 512


def test_a_lie_about_what_an_end_holds_heals(ring):
    """A floor as high as can be makes the QC useless as long as the node says so, and no longer."""
    ring.fill(1000)
    (qc,), most = ring.along("ab"), (1 << 62) - 1
    ring.nodes["a"].report([Claim(qc, EPOCH, most, most)], next(NUMBERS))
    assert ring.nodes["b"].available([qc]) == {qc: 0}

    ring.nodes["a"].report([claim(qc, 1000)], next(NUMBERS))

    assert ring.ranges("ba", 10) == [Range(qc, 0, 10, EPOCH)]


def test_a_lie_about_blocks_heals(ring):
    """Of one far beyond all others, and of another one in a place: what a report says anew counts, and is asked for."""
    (qc,) = ring.along("ab")
    far, other = Mark(1 << 61, (1 << 61) + 10, DIGEST), Mark(0, 10, bytes(15) + b"x")
    ring.nodes["a"].report([Claim(qc, EPOCH, 0, 0, [other, far])], next(NUMBERS))

    assert ring.nodes["a"].report([claim(qc, 1000)], next(NUMBERS))[qc].known == 1000

    ring.nodes["b"].report([claim(qc, 1000)], next(NUMBERS))
    assert ring.ranges("ba", 10) == [Range(qc, 0, 10, EPOCH)]


@pytest.mark.parametrize("number", [-1, (1 << 63) - 1])
def test_no_number_is_so_great_that_none_comes_after_it(ring, number):
    """A node that was taken over once could never report again."""
    (qc,) = ring.along("ab")

    for say in (lambda: ring.nodes["a"].count(number), lambda: ring.nodes["a"].report([claim(qc, 10)], number)):
        with pytest.raises(DatabaseRefused, match="p_number: expected"):
            say()

    assert ring.nodes["a"].report([claim(qc, 10)], next(NUMBERS))[qc].known == 10
    ring.nodes["a"].count(time.time_ns())


def test_a_node_can_enter_with_its_declared_qcs_only(ring):
    """A QC's name is its owner's to give; a node that was set up otherwise is told."""
    (ab,), (bc,) = ring.along("ab"), ring.along("bc")
    for peers in ({ab: "c"}, {bc: "c"}, {"new": "b"}):
        with pytest.raises(DatabaseRefused, match="p_qcs"):
            ring.nodes["a"].enter(peers)


def test_a_node_learns_its_own_secret_alone(ring):
    """By which it knows what was allocated; each has another one."""
    assert len({node.secret for node in ring.nodes.values()}) == 3


def test_every_later_node_of_a_path_can_prove_what_was_allocated(ring):
    """By its own secret, of the ranges on both sides of it; a repeated request has the same proofs."""
    ring.fill(1000)
    found = ring.allocate("abc", 16, request=(made := new_request()), mode=BASIC)

    assert found.proofs == [
        proof(ring.nodes[name].secret, made, found.server, position=at, hops=2, around=found.ranges[at - 1 : at + 1])
        for at, name in enumerate("bc", start=1)
    ]
    assert ring.allocate("abc", 16, request=made, mode=BASIC) == found
    assert ring.allocate("ab", 16).proofs == []


def over_both_ways(ring: Ring, *needs: int, qcs: Sequence[str] = ()) -> Allocation | Shortage:
    """What a gets for a key of 16 bytes for c, over the link between them and by way of b."""
    owner = KeyOwner(KSID, SAES["a"], SAES["c"], "c")
    over = qcs or [*ring.along("ac"), *ring.along("abc")]
    made, key_id = new_request(), str(uuid.uuid4())
    asked = list(zip(over, needs, strict=True))
    return ring.nodes["a"].allocate(made, asked, key_ids=[key_id], key_bytes=16, owner=owner)


def test_several_paths_are_allocated_all_or_none(ring):
    """Each later node can prove its place on its own path; the last one of each path, too."""
    ring.fill(20)
    found = over_both_ways(ring, 16, 16, 16)

    (ac,), (ab, bc) = ring.along("ac"), ring.along("abc")
    assert [(where.qc, len(where)) for where in found.ranges] == [(ac, 16), (ab, 16), (bc, 16)]
    places = [("c", 1, 1, found.ranges[:1]), ("b", 1, 2, found.ranges[1:]), ("c", 2, 2, found.ranges[2:])]
    assert found.proofs == [
        proof(ring.nodes[name].secret, found.request, found.server, position=at, hops=hops, around=around)
        for name, at, hops, around in places
    ]
    short = over_both_ways(ring, 16, 16, 16)
    assert (short.qc, short.short_bytes) == (min(ac, ab, bc), 12)
    assert ring.allocate("abc", 4).ranges[0].start == 16  # nothing was taken


def test_key_over_several_paths_is_no_instruction_for_the_slave(ring):
    """Though one of them is a single link: what lies there is a pad."""
    ring.fill(1000)
    found = over_both_ways(ring, 16, 16, 16)

    instructions, _ = ring.nodes["c"].collect(str(uuid.uuid4()))

    assert found.request not in {instruction.request for instruction in instructions}


@pytest.mark.parametrize(
    "wrong", ["the same path twice", "a QC twice", "an end on the way", "less of one"],
)  # fmt: skip
def test_several_paths_that_share_anything_are_refused(ring, wrong):
    """The database, too, has no node or QC on two of them, and each brings a part as long as the key."""
    ring.fill(1000)
    (ac,), (ab, bc) = ring.along("ac"), ring.along("abc")
    qcs, needs = {
        "the same path twice": ([ab, bc, ab, bc], [16] * 4), "a QC twice": ([ac, ac], [16] * 2),
        "an end on the way": ([ac, bc, ab, ac], [16] * 4), "less of one": ([ac, ab, bc], [32, 16, 16]),
    }[wrong]  # fmt: skip

    with pytest.raises(DatabaseRefused):
        over_both_ways(ring, *needs, qcs=qcs)


def test_the_owner_reads_what_was_allocated_and_which_keys_that_made(ring, stack):
    """For the audit: the ranges of each request in the order of its path, and its keys, over one hop and several."""
    ring.fill(1000)
    direct, relayed = new_request(), new_request()
    ring.ranges("ab", 16, request=direct)
    ring.ranges("abc", 16, request=relayed, mode=BASIC)

    with stack.cluster.admin_url() as url:
        allocations, keys = read_allocations(url, stack.schema)

    (ab,), (bc,) = ring.along("ab"), ring.along("bc")
    assert sorted(row for row in allocations if row[0] in (direct, relayed)) == sorted(
        [(direct, 1, ab, EPOCH, 0, 16, "a"), (relayed, 1, ab, EPOCH, 16, 48, "a"), (relayed, 2, bc, EPOCH, 0, 16, "a")]
    )
    key_ids = {made: str(uuid.uuid5(uuid.UUID(made), "key")) for made in (direct, relayed)}
    assert sorted(row for row in keys if row[1] in (direct, relayed)) == sorted(
        [(key_ids[direct], direct, ALICE, BOB), (key_ids[relayed], relayed, ALICE, CAROL)]
    )


def test_cost_of_a_key_is_its_part_of_each_range_of_its_path(ring):
    """Of keys that were made together each has its own part, and together they are all: 3 keys share 16 bytes."""
    ring.fill(1000)
    owner, key_ids = KeyOwner(KSID, ALICE, CAROL, "c"), sorted(new_request() for _ in range(3))
    (ab,), (bc,) = ring.along("ab"), ring.along("bc")
    request = new_request()
    ring.nodes["a"].allocate(request, [(ab, 16 + 3 * 32), (bc, 16)], key_ids=key_ids, key_bytes=32, owner=owner)

    cost = ring.nodes["a"].cost(key_ids)
    assert {(key_id, of) for key_id, of, _ in cost} == {(key_id, request) for key_id in key_ids}
    bounds = {ab: [0, 37, 74, 112], bc: [0, 5, 10, 16]}
    parts = {(key_ids[i], Range(qc, at[i], at[i + 1], EPOCH)) for qc, at in bounds.items() for i in range(3)}
    assert {(key_id, where) for key_id, _, where in cost} == parts
    assert ring.nodes["c"].cost(key_ids[1:2]) == [part for part in cost if part[0] == key_ids[1]], "it is for its SAE"
    assert ring.nodes["b"].cost(key_ids) == [], "it only relays"


def test_cost_of_keys_over_one_hop_is_where_they_lie(ring):
    """Whatever their IDs are; of a key that nobody allocated there is none."""
    ring.fill(1000)
    owner, (first, second) = KeyOwner(KSID, ALICE, BOB, "b"), sorted((new_request() for _ in range(2)), reverse=True)
    (ab,) = ring.along("ab")
    request = new_request()
    ring.nodes["a"].allocate(request, [(ab, 64)], key_ids=[first, second], key_bytes=32, owner=owner)

    assert ring.nodes["b"].cost([second, new_request()]) == [(second, request, Range(ab, 32, 64, EPOCH))]


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("qkd_enter", "'b', '{}', '{}'"),
        ("qkd_count", "'b', '1'"),
        ("qkd_report", "'b', '', '1', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}'"),
        ("qkd_allocate", f"'{KSID}', 'b', '', '{{}}', '{{}}', '{{}}', '1', NULL, NULL, NULL, NULL, NULL"),
        ("qkd_deliver", f"'{KSID}', 'b', '', '', '', '{{}}'"),
        ("qkd_collect", f"'{KSID}', 'b', '', '1'"),
        ("qkd_cost", "'b', '{}'"),
    ],
)
def test_a_node_speaks_for_itself_only(stack, function, arguments):
    """With the certificate of a it cannot report, allocate or fetch as b."""
    with as_node(stack) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege, match="cannot speak for"):
        connection.execute(f"SELECT {function}({arguments})")


def test_a_node_cannot_put_tables_of_its_own_in_the_functions_way(ring, stack):
    """The functions run with the owner's rights: a temporary `qc` that they would use instead is a way to take them."""
    qc = next(iter(ring.qcs))
    with as_node(stack) as connection:
        try:
            connection.execute("CREATE TEMPORARY TABLE qc (name text, node_a text, node_b text, head_a bigint,"
                               " head_b bigint, floor_a bigint, floor_b bigint, tail bigint)")  # fmt: skip
        except psycopg.errors.InsufficientPrivilege:
            return
        assert connection.execute("SELECT * FROM qkd_available(%s)", ([qc],)).fetchall() == [(qc, 0)]


def test_without_a_nodes_certificate_there_is_no_way_in(stack, tmp_path):
    """No certificate, an SAE's, the controller's, another network's, no TLS, or another user: PostgreSQL refuses."""
    sae, controller = stack.issue(Role.SAE, ALICE), stack.issue(Role.CONTROLLER, "ctl")
    stranger = Authority(tmp_path / "elsewhere").issue(Identity(Role.NODE, "a"))
    refused = [
        # A path that does not exist counts as none; without it libpq would look in the home directory.
        ("client certificate", {"sslcert": str(tmp_path / "none"), "sslkey": str(tmp_path / "none")}),
        ("authentication failed", {"sslcert": str(sae.certificate), "sslkey": str(sae.key)}),
        ("authentication failed", {"sslcert": str(controller.certificate), "sslkey": str(controller.key)}),
        ("unknown ca|certificate", {"sslcert": str(stranger.certificate), "sslkey": str(stranger.key)}),
        ("no encryption", {"sslmode": "disable"}),
        ("no pg_hba.conf entry", {"user": "postgres"}),
        ("authentication failed", {"user": "node-b"}),
        ("no pg_hba.conf entry", {"dbname": "postgres"}),
    ]
    for words, changes in refused:
        with pytest.raises(psycopg.OperationalError, match=words):
            as_node(stack, **changes).close()
    as_node(stack).close()
