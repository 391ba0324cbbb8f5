"""The local database: a byte leaves once, expired bytes never, and nothing readable lies on disk."""

import contextlib
import shutil
from pathlib import Path

import pytest

from decisions.ranges import Claim, Instruction, Mark, Range
from documents.secret import Secret
from node.material.blocks import Block
from node.material.key_store import KeyStore, RelayedKey
from node.material.key_stream import Missing, Outdated

QC = "a-b/1"
DIGEST = bytes(16)  # which the shared database compares, not the store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database lies."""
    return tmp_path / "local.db"


class Clock:
    """The machine's, which the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """It stands at 1000 s."""
    return Clock()


def opened(path: Path, clock: Clock) -> KeyStore:
    """A store with a TTL of 3 slots of 2 s, in `path`."""
    return KeyStore(path, path.with_suffix(".key"), ttl_slots=3, slot_s=2.0, clock=clock)


@pytest.fixture
def store(path: Path, clock: Clock):
    """A store with a TTL of 3 slots of 2 s."""
    store = opened(path, clock)
    yield store
    store.close()


def block(slot: int, offset: int, payload: bytes, *, epoch: int = 7, made: float = 1000.0) -> Block:
    """A block of QC a-b/1."""
    return Block(QC, slot, slot, offset, Secret(payload), epoch=epoch, made=made)


def bytes_of(store: KeyStore, start: int, end: int, *, epoch: int = 7) -> bytes:
    """Take [start, end) and reveal it."""
    return store.take([Range(QC, start, end, epoch)])[0].reveal()


def test_gives_the_bytes_of_a_range_across_blocks(store):
    """A key larger than a block comes out in the order of the stream."""
    store.store(block(1, 0, b"abcd"), DIGEST)
    store.store(block(2, 4, b"efgh"), DIGEST)

    assert bytes_of(store, 2, 7) == b"cdefg"
    assert bytes_of(store, 0, 2) == b"ab"
    assert bytes_of(store, 7, 8) == b"h"


def test_a_byte_leaves_once(store):
    """Any overlap with bytes already taken is refused, and the rest of the request stays where it was."""
    store.store(block(1, 0, b"abcdefgh"), DIGEST)
    bytes_of(store, 2, 4)

    with pytest.raises(Missing):
        store.take([Range(QC, 4, 6, 7), Range(QC, 3, 4, 7)])

    assert bytes_of(store, 4, 6) == b"ef"


def test_a_byte_leaves_once_across_a_restart(store, path, clock):
    """What was taken before a crash cannot be taken after it; what was not is still there."""
    store.store(block(1, 0, b"abcd"), DIGEST)
    bytes_of(store, 0, 2)
    again = opened(path, clock)

    with pytest.raises(Missing):
        bytes_of(again, 0, 1)

    assert bytes_of(again, 2, 4) == b"cd"
    again.close()


def test_nothing_is_kept_across_a_restart_of_the_machine(store, path, clock, monkeypatch):
    """Its clock begins anew, so no age is known; what the disk may have forgotten of the last takes is gone with it."""
    store.store(block(1, 0, bytes(1000) * 12), DIGEST)
    bytes_of(store, 0, 32)
    store.put_relayed([RelayedKey("k", "s", "m", "v", Secret(b"key"), 1000.0)])
    on_disk = path.parent / "before"
    shutil.copytree(path.parent, on_disk, ignore=shutil.ignore_patterns("before", "*-shm"))
    boot = path.parent / "boot_id"
    boot.write_text("another\n")
    monkeypatch.setattr("node.material.key_stream._BOOT_ID", boot)
    clock.now = 3.0

    again = opened(on_disk / path.name, clock)

    (held,) = again.held()
    assert (held.stored, held.floor) == (0, held.head)
    assert held.generated == held.used + held.expired + held.stored
    assert again.relayed_owners(["k"]) == {}
    assert again.store(block(2, 12_000, b"abcd", made=3.0), DIGEST)
    assert bytes_of(again, 12_000, 12_004) == b"abcd"
    again.close()


def test_bytes_survive_a_crash_of_the_node_alone(store, path, clock):
    """The machine runs on, so their age is known."""
    store.store(block(1, 0, b"abcdefgh"), DIGEST)
    bytes_of(store, 0, 4)

    again = opened(path, clock)

    assert bytes_of(again, 4, 8) == b"efgh"
    again.close()


def test_a_repeated_block_changes_nothing(store):
    """A block sent again because its acknowledgement was lost is not stored twice."""
    store.store(block(1, 0, b"abcd"), DIGEST)
    bytes_of(store, 0, 4)

    assert store.store(block(1, 0, b"abcd"), DIGEST) is False
    assert store.held()[0].stored == 0


def test_expired_bytes_are_never_given(store, clock):
    """With a TTL of 3 slots of 2 s they serve for 6 s, whatever the device does; then they are refused and erased."""
    store.store(block(1, 0, b"abcd"), DIGEST)
    clock.now += 5.9
    assert bytes_of(store, 0, 1) == b"a"

    clock.now += 0.1

    with pytest.raises(Missing):
        bytes_of(store, 1, 2)
    assert store.expire() == 3
    (held,) = store.held()
    assert (held.generated, held.used, held.expired, held.stored) == (4, 1, 3, 0)
    assert held.floor == 4


def test_stock_is_bounded_and_what_does_not_fit_expires_oldest_first(path, clock):
    """However long the TTL; what is left out is counted, and nobody new is promised what will be left out soon."""
    with contextlib.closing(KeyStore(path, path.with_suffix(".key"), ttl_slots=86_400, clock=clock,
                                     stock_bytes=1000)) as store:  # fmt: skip
        for slot in range(40):
            store.store(block(slot, 100 * slot, bytes([slot]) * 100), DIGEST)
            (held,) = store.held()  # at once: the next slot brings as much again
            assert held.stored <= 1000
            assert held.floor == max(0, held.head - 800)
            assert held.generated == held.stored + held.expired

        assert (held.expired, held.stored) == (3000, 1000)
        assert bytes_of(store, 3000, 3001) == bytes([30])  # promised a moment ago, and still there
        with pytest.raises(Missing):
            bytes_of(store, 2999, 3000)


def test_block_that_lies_across_the_bound_of_the_stock_expires_whole(path, clock):
    """So there is never more than fits."""
    with contextlib.closing(KeyStore(path, path.with_suffix(".key"), ttl_slots=86_400, clock=clock,
                                     stock_bytes=1000)) as store:  # fmt: skip
        for slot in range(40):
            store.store(block(slot, 150 * slot, bytes([slot]) * 150), DIGEST)
            (held,) = store.held()
            assert min(held.head, 1000) - 150 < held.stored <= 1000

        assert (held.expired, held.stored) == (5100, 900)


def test_nothing_is_promised_in_its_last_slot(store, clock):
    """What expires within a slot can still be taken by who was promised it, but nobody new is promised it."""
    for slot in (1, 2, 3):
        clock.now = 1000.0 + 2 * slot
        store.store(block(slot, 4 * (slot - 1), b"abcd", made=clock.now), DIGEST)

    (held,) = store.held()
    assert held.floor == 4
    assert bytes_of(store, 0, 4) == b"abcd"


def test_age_is_that_which_the_block_had_when_it_came(store, clock):
    """A block that waited for the node has so much less to live."""
    store.store(block(1, 0, b"abcd", made=995.0), DIGEST)
    clock.now += 1.0

    with pytest.raises(Missing):
        bytes_of(store, 0, 4)


def test_no_block_is_older_than_the_one_before_it(store, clock):
    """A message that was held up makes a block look older than it is; nothing young expires before what is older."""
    store.store(block(1, 0, b"abcd", made=999.0), DIGEST)
    store.store(block(2, 4, b"efgh", made=996.0), DIGEST)
    clock.now = 1004.9

    assert bytes_of(store, 0, 8) == b"abcdefgh"


def test_device_that_begins_anew_has_another_stream(store):
    """The same offsets of two epochs are different bytes; only the newest epoch is promised to anybody new."""
    store.store(block(9, 0, b"abcdefgh", epoch=7), DIGEST)
    store.store(block(1, 0, b"klmn", epoch=3), DIGEST)

    (held,) = store.held()
    assert (held.epoch, held.floor, held.head) == (3, 0, 4)
    assert (held.generated, held.stored) == (12, 12)
    assert bytes_of(store, 0, 4, epoch=7) == b"abcd"
    assert bytes_of(store, 0, 4, epoch=3) == b"klmn"


def test_epoch_that_was_left_behind_is_refused(store):
    """A device that comes back to an earlier epoch would repeat its offsets."""
    store.store(block(1, 0, b"abcd", epoch=7), DIGEST)
    store.store(block(1, 0, b"klmn", epoch=3), DIGEST)

    assert store.store(block(2, 4, b"efgh", epoch=7), DIGEST) is False
    assert store.held()[0].generated == 8


def test_block_that_differs_at_the_other_end_is_erased_and_counted(store):
    """Once; what lies behind it is still promised."""
    for slot in (1, 2, 3):
        store.store(block(slot, 4 * slot - 4, b"abcd"), DIGEST)

    assert store.discard(Range(QC, 4, 8, 7)) is True
    assert store.discard(Range(QC, 4, 8, 7)) is False

    (held,) = store.held()
    assert (held.differing, held.stored, held.floor, held.head) == (4, 8, 8, 12)
    assert store.claims({}) == [Claim(QC, 7, 8, 8, [Mark(8, 12, DIGEST)])]
    with pytest.raises(Missing):
        bytes_of(store, 4, 5)


def test_claims_are_of_blocks_that_live_and_that_nobody_knows_of(store, clock):
    """Of blocks with bytes in them."""
    store.store(block(1, 0, b"abcd"), b"1" * 16)
    store.store(block(2, 4, b""), b"2" * 16)
    clock.now = 1003.0
    store.store(block(3, 4, b"efgh", made=1003.0), b"3" * 16)
    assert store.claims({}) == [Claim(QC, 7, 0, 0, [Mark(0, 4, b"1" * 16), Mark(4, 8, b"3" * 16)])]
    assert store.claims({QC: (7, 4)}) == [Claim(QC, 7, 0, 4, [Mark(4, 8, b"3" * 16)])]
    assert store.claims({QC: (3, 4)}) == store.claims({})

    clock.now = 1006.0
    store.expire()

    assert store.claims({}) == [Claim(QC, 7, 4, 4, [Mark(4, 8, b"3" * 16)])]


def test_slots_are_counted_on_when_a_device_begins_anew(store):
    """Who watches the node sees a number that only grows."""
    store.store(block(9, 0, b"abcd", epoch=7), DIGEST)
    store.store(block(1, 0, b"abcd", epoch=3), DIGEST)
    store.store(block(4, 4, b"abcd", epoch=3), DIGEST)

    assert store.held()[0].slot == 13


def test_older_copy_is_known_by_its_count_and_erased(store, path, clock):
    """It would hand out again what the database that it is a copy of has handed out since."""
    store.store(block(1, 0, b"abcd"), DIGEST)
    store.put_relayed([RelayedKey("k1", "s", "m", "v", Secret(b"key"), 1000.0)])
    put_back = path.parent / "copy"
    shutil.copytree(path.parent, put_back, ignore=shutil.ignore_patterns("copy", "*-shm"))
    assert store.take_relayed(["k1"]) is not None
    copy = KeyStore(put_back / path.name, put_back / "local.key", ttl_slots=3, slot_s=2.0, clock=clock)

    assert copy.catch_up(store.counted) is True

    assert copy.take_relayed(["k1"]) is None
    (held,) = copy.held()
    assert (held.stored, held.expired, held.floor) == (0, 4, held.head)
    assert copy.number_report() > store.counted
    copy.close()


def test_database_that_the_shared_one_knows_all_of_keeps_what_it_has(store):
    """Also when the shared database has lost the last that it was told."""
    store.put_relayed([RelayedKey("k1", "s", "m", "v", Secret(b"key"), 1000.0)])

    assert store.catch_up(store.counted) is False
    assert store.catch_up(store.counted - 1) is False

    assert store.take_relayed(["k1"]) is not None


def test_numbers_of_reports_grow_across_restarts(store, path, clock):
    """By them the shared database knows which of two reports is the newer one."""
    before = store.number_report()
    again = opened(path, clock)

    assert before < again.number_report() < again.number_report()
    again.close()


def test_a_lost_block_leaves_a_gap_that_nothing_spans(store):
    """After a gap new allocations start behind it, while what was promised before it can still be taken."""
    store.store(block(1, 0, b"abcd"), DIGEST)
    store.store(block(2, 10, b"klmn"), DIGEST)

    (held,) = store.held()
    assert (held.floor, held.head) == (10, 14)
    assert bytes_of(store, 0, 4) == b"abcd"
    with pytest.raises(Missing):
        bytes_of(store, 8, 12)


def test_nothing_readable_lies_on_disk(store, path):
    """Neither waiting nor taken key bytes stand in the files in the clear, and the files are private."""
    store.store(block(1, 0, b"quite-recognisable-key-material"), DIGEST)
    bytes_of(store, 0, 10)
    store.put_relayed([RelayedKey("k", "s", "m", "v", Secret(b"another-recognisable-key"), 1000.0)])

    for file in path.parent.iterdir():
        assert b"recognisable" not in file.read_bytes()
        assert file.stat().st_mode & 0o077 == 0


def test_relayed_key_waits_sealed_and_nowhere_else(store):
    """What is ours of it in memory is wiped."""
    key = Secret(b"key")

    store.put_relayed([RelayedKey("k1", "s", "m", "v", key, 1000.0)])

    assert len(key) == 0


def test_relayed_keys_are_taken_all_or_none_and_once(store):
    """A request with one unknown ID takes nothing; a key taken is gone."""
    store.put_relayed([RelayedKey("k1", "s", "m", "v", Secret(b"key"), 1000.0)])

    assert store.take_relayed(["k1", "unknown"]) is None
    (key,) = store.take_relayed(["k1"])
    assert key.key.reveal() == b"key"
    assert store.take_relayed(["k1"]) is None


def test_relayed_key_lives_for_the_ttl_from_its_making(store, clock):
    """One that nobody fetched is refused then, and erased."""
    store.put_relayed([RelayedKey(name, "s", "m", "v", Secret(b"key"), 1000.0) for name in ("k1", "k2")])
    clock.now += 5.9
    assert store.take_relayed(["k1"]) is not None

    clock.now += 0.1

    assert store.take_relayed(["k2"]) is None
    store.expire()
    assert store.relayed_owners(["k2"]) == {}


def test_found_key_of_an_id_that_waits_here_already_harms_no_other(store):
    """A hostile first node relayed one of that ID before: the others that were found with it are kept."""
    store.put_relayed([RelayedKey("k1", "s", "m", "v", Secret(b"xx"), 1000.0)])
    store.store(block(1, 0, b"abcd"), DIGEST)
    found = [Instruction(k, "r", "s", "m", "v", Range(QC, at, at + 2, 7), False) for k, at in (("k1", 0), ("k2", 2))]

    assert store.keep_found(found, 1000.0) == {"k1"}
    assert [k.key.reveal() for k in store.take_relayed(["k1", "k2"])] == [b"xx", b"cd"]


def test_ranges_of_another_server_than_the_one_that_is_followed_are_not_taken(store):
    """It may not know of them any more, and give them to the other end; they stay where they are."""
    store.store(block(1, 0, b"abcd"), DIGEST)
    store.follow("new")

    with pytest.raises(Outdated):
        store.take([Range(QC, 0, 2, 7)], "r", "old")

    assert store.take([Range(QC, 0, 2, 7)], "r", "new")[0].reveal() == b"ab"


def test_key_that_was_found_is_as_old_as_the_shared_database_says(store, clock):
    """It lives for a TTL from its making, however late this node heard of it; its bytes may be older."""
    store.store(block(1, 0, b"abcd"), DIGEST)
    clock.now += 5.0
    found = [Instruction(name, "r", "s", "m", "v", Range(QC, *place, 7), False, age_s=2.0)
             for name, place in (("k1", (0, 2)), ("k2", (2, 4)))]  # fmt: skip
    assert store.keep_found(found, clock.now) == set()

    clock.now += 3.9
    assert store.take_relayed(["k1"]) is not None
    clock.now += 0.1
    assert store.take_relayed(["k2"]) is None


def test_collection_has_its_name_until_what_it_brought_is_kept(store, path, clock):
    """Also across a crash: so the shared database knows that it is asked again. What is put back begins a new one."""
    store.store(block(1, 0, b"abcd"), DIGEST)
    name = store.collection
    again = KeyStore(path, path.parent / "local.key", ttl_slots=3, slot_s=2.0, clock=clock)
    assert again.collection == name
    again.close()
    found = [Instruction("k1", "r", "s", "m", "v", Range(QC, 0, 2, 7), False)]

    store.keep_found(found, 1000.0)
    assert store.collection == name
    store.keep_found(found, 1000.0, collected=True)
    kept = store.collection
    store.catch_up(store.counted + 1)

    assert len({name, kept, store.collection}) == 3


def test_keys_that_were_found_leave_the_stream_and_wait(store):
    """Those that are still held; one that expired meanwhile is left out and harms no other."""
    store.store(block(1, 0, b"abcd"), DIGEST)
    made = [("k1", 0, 2), ("k2", 2, 9), ("k3", 2, 4)]
    found = [Instruction(key_id, "r", "s", "m", "v", Range(QC, start, end, 7), False) for key_id, start, end in made]

    assert store.keep_found(found, 1000.0) == {"k2"}
    assert set(store.relayed_owners(["k1", "k2", "k3"])) == {"k1", "k3"}
    assert [k.key.reveal() for k in store.take_relayed(["k1", "k3"])] == [b"ab", b"cd"]
    assert store.held()[0].stored == 0
