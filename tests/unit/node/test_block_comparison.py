"""What a node says that it holds, and what it does when the other end holds something else or the database forgets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from decisions.ranges import Answer, Claim, Mark, Range, Stream
from documents.secret import Secret
from node.material.block_comparison import Agreement
from node.material.blocks import Block
from node.material.key_store import KeyStore
from telemetry import journal
from telemetry.journal import Journal

QC, EPOCH = "a-b/1", 5


class Database:
    """The shared database, by the rule that its SQL implements; the node is end a."""

    def __init__(self) -> None:
        self.stream = Stream()
        self.reports: list[Sequence[Claim]] = []

    def other_end_holds(self, *marks: Mark) -> None:
        """It says so."""
        self.stream = self.stream.reported(Claim(QC, EPOCH, 0, 0, marks), by_a=False)

    def report(self, claims: Sequence[Claim], _: int) -> dict[str, Answer]:
        """As SharedDatabase.report."""
        self.reports.append(claims)
        (claim,) = claims
        self.stream = self.stream.reported(claim, by_a=True)
        end = self.stream.a
        return {QC: Answer(self.stream.known(end), [Range(QC, m.start, m.end, claim.epoch) for m in end.differing])}


@pytest.fixture
def store(tmp_path: Path):
    """Of a node at end a."""
    found = KeyStore(tmp_path / "local.db", tmp_path / "node.key", ttl_slots=15, clock=lambda: 100.0)
    yield found
    found.close()


@pytest.fixture
def database() -> Database:
    """That knows nothing."""
    return Database()


@pytest.fixture
def agreement(store: KeyStore, database: Database, tmp_path: Path) -> Agreement:
    """Of that node."""
    return Agreement([QC], store, database, Journal(tmp_path / "journal.jsonl", "node:a"))


def hold(store: KeyStore, *starts: int) -> None:
    """Blocks of ten bytes come."""
    for start in starts:
        store.store(Block(QC, start, start, start, Secret(bytes(10)), epoch=EPOCH, made=99.0), mark(start).digest)


def mark(start: int, digest: bytes = b"x" * 16) -> Mark:
    """Of a block of ten bytes."""
    return Mark(start, start + 10, digest)


def test_node_that_holds_nothing_yet_says_so(agreement, database):
    """Both ends have to report before anything is allocated."""
    agreement.report()

    assert database.reports == [[Claim(QC, epoch=0, floor=0)]]


def test_each_block_is_said_once(agreement, database, store):
    """What the database knows need not be said again."""
    hold(store, 0)
    agreement.report()
    hold(store, 10)
    agreement.report()

    assert [list(claim.marks) for (claim,) in database.reports] == [[mark(0)], [mark(10)]]


def test_database_that_has_forgotten_is_told_again_at_once(agreement, database, store):
    """Another server, which lacks the last that this one was told."""
    hold(store, 0)
    agreement.report()
    database.stream, database.reports = Stream(), []
    hold(store, 10)

    agreement.report()

    assert [list(claim.marks) for (claim,) in database.reports] == [[mark(10)], [mark(0), mark(10)]]


def test_block_that_differs_is_erased_and_told_once(agreement, database, store, tmp_path):
    """In the journal, with its place; what both ends hold alike behind it can be allocated."""
    hold(store, 0, 10)
    database.other_end_holds(mark(0, b"y" * 16), mark(10))

    for _ in range(2):
        agreement.report()

    events = journal.read(tmp_path / "journal.jsonl", "block_differs")
    assert [(e["qc"], e["epoch"], e["start"], e["end"]) for e in events] == [(QC, EPOCH, 0, 10)]
    assert store.held()[0].differing == 10
    assert (database.stream.first_free, database.stream.head) == (10, 20)
