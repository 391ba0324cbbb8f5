"""What keys cost on each link, by mode."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decisions.modes import MODES, NEW_KEYS, PAD, SHARED_KEY
from decisions.ranges import Range
from node.material.key_events import joined

QCS = [f"q{i}" for i in range(8)]


@pytest.mark.parametrize(
    ("mode", "hops", "number", "needs"),
    [
        # The paper: two keys' worth on the first link, one on every other.
        ("basic", 3, 1, [32, 16, 16]),
        ("basic", 2, 3, [96, 48]),
        # One AES key a link, and the new keys from the first one.
        ("qkp", 3, 4, [16 + 64, 16, 16]),
        ("qkp", 2, 1, [32, 16]),
        # One unit a link and nothing more.
        ("otp", 3, 1, [16, 16, 16]),
        ("parallel", 3, 2, [32, 32, 32]),
        # Over one link the keys are the range itself.
        ("basic", 1, 2, [32]),
        ("qkp", 1, 4, [64]),
        ("otp", 1, 1, [16]),
    ],
)
def test_cost_of_128_bit_keys(mode, hops, number, needs):
    """In bytes of each QC of the path."""
    assert MODES[mode].needs(QCS[:hops], 16, number) == list(zip(QCS, needs, strict=False))


@pytest.mark.parametrize(
    ("mode", "hops", "number", "needs"),
    [
        ("basic", 3, 1, [16, 16, 32]), ("qkp", 3, 4, [16, 16, 16 + 64]), ("otp", 3, 1, [16, 16, 16]),
        ("basic", 1, 2, [32]),
    ],
)  # fmt: skip
def test_last_qc_may_give_the_new_keys_in_place_of_the_first(mode, hops, number, needs):
    """Then they lie behind the last pad. What is relayed directly costs no end more, nor do keys over one hop."""
    found = MODES[mode].needs(QCS[:hops], 16, number, double_at_last=True)
    ranges = [Range(qc, 100, 100 + n) for qc, n in found]

    assert [n for _, n in found] == needs
    uses = MODES[mode].uses(ranges, 16, number, double_at_last=True)
    assert joined(r for r, _ in uses) == ranges
    if mode in ("basic", "qkp") and hops > 1:
        assert [purpose for _, purpose in uses] == [SHARED_KEY, *[PAD] * (hops - 1), NEW_KEYS]
        assert len(uses[-1][0]) == 16 * number


def test_longer_keys_travel_under_a_longer_aes_key():
    """A shared key of 128 bits must not carry keys that promise more."""
    assert [MODES["qkp"].shared_bytes(n, 4) for n in (8, 16, 17, 32, 1024)] == [16, 16, 32, 32, 32]


@pytest.mark.parametrize(
    ("mode", "hops", "key_bytes", "cost"),
    [
        # Under an AES key of 128 bits short keys are dear, and long ones under one of 256 bits cheap.
        ("qkp", 2, 8, [8 + 16 / 4, 16 / 4]),
        ("qkp", 3, 128, [128 + 32 / 4, 32 / 4, 32 / 4]),
        ("qkp", 1, 8, [8]),
        ("basic", 2, 128, [256, 128]),
        ("otp", 2, 8, [8, 8]),
    ],
)
def test_cost_of_a_key_of_many_is_what_nodes_take_for_all_of_them(mode, hops, key_bytes, cost):
    """Four keys ahead. Admission reserves this, so it must be true for every size, not for 128 bits alone."""
    assert MODES[mode].per_key(hops, key_bytes, 4) == cost


@given(st.sampled_from(sorted(MODES)), st.integers(1, 8), st.integers(1, 200), st.integers(1, 64), st.data())
def test_makeable_is_what_one_gets_who_asks_one_by_one(mode, hops, key_bytes, keys_ahead, data):
    """The number of keys that status promises can really be made: ahead while that is possible, then one at a time."""
    at_last = data.draw(st.booleans())
    available = data.draw(st.lists(st.integers(0, 4000), min_size=hops, max_size=hops))
    left, made = list(available), 0
    for batch in (keys_ahead, 1) if MODES[mode].ahead else (1,):
        while True:
            needs = MODES[mode].needs(QCS[:hops], key_bytes, batch, double_at_last=at_last)
            after = [a - need for a, (_, need) in zip(left, needs, strict=True)]
            if min(after) < 0:
                break
            left, made = after, made + batch

    assert MODES[mode].makeable(available, key_bytes, keys_ahead, double_at_last=at_last) == made


@given(st.sampled_from(["paths-2", "paths-3", "paths-2of3"]), st.integers(1, 200), st.data())
def test_makeable_over_several_paths_is_what_one_gets_who_asks_one_by_one(name, key_bytes, data):
    """Without the path of the QC that lacks most as long as the others are enough."""
    mode = MODES[name]
    hops = data.draw(st.lists(st.integers(1, 4), min_size=mode.paths, max_size=mode.paths))
    left = {f"{p}-{i}": data.draw(st.integers(0, 4000)) for p, n in enumerate(hops) for i in range(n)}
    qcs = [[f"{p}-{i}" for i in range(n)] for p, n in enumerate(hops)]
    counted, made, paths = mode.makeable_over([[left[qc] for qc in path] for path in qcs], key_bytes), 0, qcs
    while len(paths) >= mode.enough:
        poorest = min((qc for path in paths for qc in path), key=left.__getitem__)
        if left[poorest] < key_bytes:
            paths = [path for path in paths if poorest not in path]
            continue
        made += 1
        for qc in itertools.chain.from_iterable(paths):
            left[qc] -= key_bytes

    assert counted == made


@given(
    st.integers(1, 64), st.integers(1, 9), st.lists(st.integers(0, 4000), min_size=2, max_size=4),
    st.lists(st.integers(1, 12)),
)  # fmt: skip
def test_what_is_counted_can_also_be_had_by_requests_for_several_keys(key_bytes, keys_ahead, available, requests):
    """Whatever requests add up to the count: all are served, and none makes it drop by more than was taken."""
    mode, left, pool = MODES["qkp"], list(available), 0
    for wanted in requests:
        counted = mode.makeable(left, key_bytes, keys_ahead) + pool
        if wanted > counted:
            continue
        missing = max(0, wanted - pool)
        for number in (mode.number_at_once(missing, keys_ahead), missing) if missing else ():
            needs = mode.needs(QCS[: len(left)], key_bytes, number)
            after = [a - need for a, (_, need) in zip(left, needs, strict=True)]
            if min(after) >= 0:
                left, pool = after, pool + number
                break
        assert pool >= wanted
        pool -= wanted
        assert mode.makeable(left, key_bytes, keys_ahead) + pool >= counted - wanted


def test_only_modes_that_look_ahead_make_more_than_is_missing():
    """Whole batches, and never fewer."""
    assert [MODES[m].number_at_once(1, 4) for m in ("basic", "otp", "qkp")] == [1, 1, 4]
    assert [MODES["qkp"].number_at_once(missing, 4) for missing in (4, 7, 9)] == [4, 8, 12]
