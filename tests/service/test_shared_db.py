"""The shared database is what decides: a real PostgreSQL, asked by the nodes' own client, alone and in crowds."""

from __future__ import annotations

import concurrent.futures
import itertools
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg
import pytest

from mtls.authority import Authority
from mtls.identity import Identity, Role
from node.ranges import Claim, Mark, Range, Shortage, Stream, allocate
from node.shared_db import Foreign, KeyOwner, NotFound, SharedDatabase
from testbed.cluster import node_url
from testbed.loopback import LOOPBACK, Stack

ALICE, BOB, MALLORY = (str(uuid.UUID(int=i)) for i in range(1, 4))
KSID = str(uuid.UUID(int=9))
OWNER = KeyOwner(KSID, ALICE, BOB, "b")
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

    def fill(self, n_bytes: int) -> None:
        """All ends say that they hold the first `n_bytes` of their QCs."""
        for name, node in self.nodes.items():
            node.report([claim(qc, n_bytes) for qc, ends in self.qcs.items() if name in ends], next(NUMBERS))


@pytest.fixture
def ring(stack: Stack) -> Iterator[Ring]:
    """Nodes a, b, c, each pair joined by a QC that both have announced."""
    stack.cluster.admit("abc")
    prefix = uuid.uuid4().hex[:8]
    qcs = {f"{prefix}-{a}-{b}/1": (a, b) for a, b in (("a", "b"), ("b", "c"), ("a", "c"))}
    nodes = {}
    for name in "abc":
        url = node_url(name, stack.issue(Role.NODE, name), stack.database, LOOPBACK, stack.database_port)
        nodes[name] = SharedDatabase(url, stack.schema, name)
        nodes[name].open()
    try:
        for qc, (a, b) in qcs.items():
            nodes[b].register_qc(qc, a)
            nodes[a].register_qc(qc, b)
        yield Ring(nodes, qcs)
    finally:
        for node in nodes.values():
            node.close()


def claim(qc: str, *ends: int, epoch: int = EPOCH) -> Claim:
    """What a node's store would say: blocks up to these ends, the first of which begins at 0."""
    marks = [Mark(start, end, DIGEST) for start, end in itertools.pairwise((0, *ends))]
    return Claim(qc, epoch, 0, 0, marks)


def request() -> str:
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
    """Whatever is reported and asked, from whichever end: the same ranges, the same shortage as node/ranges.py."""
    rng = random.Random(seed)
    streams = dict.fromkeys(ring.qcs, Stream())
    devices = {qc: Device(rng) for qc in ring.qcs}
    known: dict[tuple[str, str], tuple[int, int]] = {}
    told = 0
    given: dict[str, tuple[list[tuple[str, int]], list[Range]]] = {}
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
            again, (needs, ranges) = rng.choice(list(given.items()))
            assert node.allocate(again, needs) == ranges
        else:
            needs = [(qc, rng.randint(1, 60)) for qc in rng.sample(list(ring.qcs), rng.randint(1, 3))]
            if rng.random() < 0.1:  # exactly what is there, or a byte too much
                needs = [(qc, max(1, streams[qc].available + rng.randint(0, 1))) for qc, _ in needs]
            expected, new = allocate(streams, needs), request()
            found = node.allocate(new, needs)
            if isinstance(expected, Shortage):
                assert found == expected
                refused += 1
            else:
                streams, ranges = expected
                assert found == ranges
                given[new] = needs, ranges
        assert node.available(list(ring.qcs)) == {qc: stream.available for qc, stream in streams.items()}
    assert len(given) > 30
    assert refused > 30
    assert told > 5


def test_a_crowd_on_crossing_paths_gets_ranges_of_its_own(ring, stack):
    """All nodes ask at once for the QCs in every order while heads grow: no byte twice, none lost, no deadlock."""
    rng = random.Random(1)
    ring.fill(2000)
    orders = [order for n in (1, 2, 3) for order in itertools.permutations(ring.qcs, n)]

    def ask(name: str, qcs: tuple[str, ...], n_bytes: int) -> Callable[[], object]:
        return lambda: ring.nodes[name].allocate(request(), [(qc, n_bytes + i) for i, qc in enumerate(qcs)])

    def report(name: str, n_blocks: int, *, turned: bool) -> Callable[[], object]:
        blocks = range(2000, 2000 + 10 * n_blocks + 1, 10)
        own = [claim(qc, *blocks) for qc, ends in ring.qcs.items() if name in ends]
        number = next(NUMBERS)  # of when it is made; on their way they overtake each other
        return lambda: ring.nodes[name].report(own[::-1] if turned else own, number)

    calls = [ask(rng.choice("abc"), order, rng.randint(1, 30)) for order in orders * 40]
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
    path, again = list(ring.qcs)[:2], request()
    needs = [(path[1], 100), (path[0], 50)]

    answers = at_once([lambda: ring.nodes["b"].allocate(again, needs)] * 40)

    assert answers == [[Range(path[1], 0, 100, EPOCH), Range(path[0], 0, 50, EPOCH)]] * 40
    assert ring.nodes["a"].available(path) == {path[0]: 950, path[1]: 900}


def test_allocations_survive_a_crash_of_the_database(ring, stack):
    """What was given before the server was killed is not given again, and a repeated request gets its old answer."""
    ring.fill(1000)
    qc, before = next(iter(ring.qcs)), request()
    given = ring.nodes["a"].allocate(before, [(qc, 100)])

    stack.postgres.kill()
    stack.start_postgres()

    assert ring.nodes["b"].allocate(before, [(qc, 100)]) == given
    assert ring.nodes["b"].allocate(request(), [(qc, 100)]) == [Range(qc, 100, 200, EPOCH)]


def test_a_qc_between_other_nodes_is_refused(ring):
    """Two nodes that disagree about a QC's ends must not share a stream."""
    qc = next(iter(ring.qcs))

    with pytest.raises(psycopg.errors.RaiseException, match="registered between other nodes"):
        ring.nodes["a"].register_qc(qc, "c")


def test_report_that_was_overtaken_counts_for_nothing(ring):
    """It may name an epoch that its node has left behind since."""
    qc = next(iter(ring.qcs))
    first, second = next(NUMBERS), next(NUMBERS)
    for name in "ab":
        ring.nodes[name].report([claim(qc, 100, epoch=8)], second)

    assert ring.nodes["a"].report([claim(qc, 100, epoch=7)], first) == {}

    assert ring.nodes["a"].allocate(request(), [(qc, 100)]) == [Range(qc, 0, 100, 8)]


def test_node_that_holds_nothing_yet_may_say_so(ring):
    """It has had no block of any QC."""
    ring.nodes["a"].report([], next(NUMBERS))


def make_keys(ring: Ring, number: int, owner: KeyOwner = OWNER) -> tuple[list[str], str, str]:
    """(key IDs, request, QC) of as many keys on the QC a-b, all of one request."""
    qc, key_ids, made = next(iter(ring.qcs)), [str(uuid.uuid4()) for _ in range(number)], request()
    needs = [(qc, KEY_BYTES * number)]
    answer = ring.nodes["a"].allocate(made, needs, key_ids=key_ids, key_bytes=KEY_BYTES, owner=owner)
    assert answer == [Range(qc, 0, KEY_BYTES * number, EPOCH)]
    return key_ids, made, qc


def fetch(ring: Ring, key_ids: list[str], *, node: str = "b", master: str = ALICE, slave: str = BOB):
    """What the slave's KME gets: instructions, or the refusal."""
    try:
        return ring.nodes[node].deliver(master, slave, key_ids)
    except (Foreign, NotFound) as refusal:
        return type(refusal)


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
    assert fetch(ring, key_ids, node="c") is NotFound

    assert {i.key_id for i in fetch(ring, key_ids)} == set(key_ids)
    assert fetch(ring, key_ids, slave=MALLORY) is Foreign
    assert fetch(ring, key_ids) is NotFound


def test_a_repeated_delivery_gets_the_same_answer(ring, stack):
    """Its answer was lost on the way and the same node asks again under the same ID; under another it gets nothing."""
    ring.fill(1000)
    key_ids, _, _ = make_keys(ring, 2)
    call = "SELECT verdict, key_id FROM qkd_deliver(%s, 'b', %s, %s, %s::uuid[])"

    with as_node(stack, "b") as connection:
        this, other = uuid.uuid4(), uuid.uuid4()
        first, again, late = (
            connection.execute(call, (delivery, ALICE, BOB, key_ids[:1])).fetchall() for delivery in (this, this, other)
        )
    assert sorted(first) == sorted(again) == sorted([("ok", uuid.UUID(key_ids[0])), ("ahead", uuid.UUID(key_ids[1]))])
    assert late == [("missing", None)]


def as_node(stack: Stack, name: str = "a", **changes: str) -> psycopg.Connection:
    """A bare connection with the certificate of that node, but for `changes`."""
    stack.cluster.admit("ab")
    url = node_url(name, stack.issue(Role.NODE, name), stack.database, LOOPBACK, stack.database_port)
    options = {"options": f"-c search_path={stack.schema}", "connect_timeout": 5, "autocommit": True}
    return psycopg.connect(url, **(options | changes))


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM qc",
        "SELECT * FROM allocation",
        "SELECT * FROM key_instruction",
        "DELETE FROM allocation",
        "DELETE FROM key_instruction",
        "UPDATE qc SET tail = 0",
        "UPDATE key_instruction SET delivered = NULL",
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


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("qkd_register_qc", "'x', 'b', 'a'"),
        ("qkd_report", "'b', 1, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}'"),
        ("qkd_allocate", "gen_random_uuid(), 'b', '{}', '{}', '{}', 1, NULL, NULL, NULL, NULL"),
        ("qkd_deliver", "gen_random_uuid(), 'b', 'one', 'other', '{}'"),
        ("qkd_collect", "gen_random_uuid(), 'b', 1"),
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
