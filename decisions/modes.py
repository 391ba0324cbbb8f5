"""PURE: how a key reaches the last node of a path, as a declared cost on each link.

A mode says what a batch of keys takes from each QC of the path; admission, the load model and the allocation all read
that one declaration, so that none of them asks which mode it is, and a session is promised what its keys will cost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from decisions.calendar import Draw
from decisions.ranges import Range, promised_slots

# What a range of a QC is for. The new keys lie in the first QC, behind the shared key, or in the last one, behind the
# pad.
KEY, SHARED_KEY, NEW_KEYS, PAD = "key", "shared key", "new keys", "pad"
AUTO, MOST_AHEAD = 0, 64  # of keys made ahead
OTP, AES_CCM = "otp", "aes-ccm"
_SMALL_AES_KEY_BYTES, _LARGE_AES_KEY_BYTES = 16, 32


@dataclass(frozen=True, slots=True)
class Mode:
    """`cipher`: what seals the new keys under the shared one on their way to the last node.

    None: there is no shared key, the new keys themselves travel hop by hop. `ahead`: keys are made several at once,
    and those not needed yet wait in the pools of both nodes. `at_once`: the nodes between do not wait for one another;
    each tells the last node what turns the pad of its one link into that of the other. There is no shared key then.

    `paths`: over how many node-disjoint paths a key goes, a part of it over each, at once. `enough`: with so many parts
    the last node has the key, and nobody has anything of it with fewer.

    Behind a shared key one QC gives the new keys as well: the first of the path, or with `double_at_last` the last one.
    """

    name: str
    cipher: str | None
    ahead: bool
    at_once: bool = False
    paths: int = 1
    enough: int = 1

    def shared_bytes(self, key_bytes: int, number: int) -> int:
        """Bytes that travel hop by hop, and that every link but one gives, for `number` keys of `key_bytes`."""
        if self.cipher == AES_CCM:
            # As strong as the keys that it carries: AES-128 for keys of up to 128 bits, AES-256 for longer ones.
            return _SMALL_AES_KEY_BYTES if key_bytes <= _SMALL_AES_KEY_BYTES else _LARGE_AES_KEY_BYTES
        return key_bytes * number

    def needs(
        self, qcs: Sequence[str], key_bytes: int, number: int, *, double_at_last: bool = False
    ) -> list[tuple[str, int]]:
        """What `number` keys of `key_bytes`, made at once, take from each QC of the path, as (QC, bytes).

        Over one link every mode is the same: the keys are the range itself.
        """
        if not qcs:
            raise ValueError("a path has at least one link")
        new = key_bytes * number
        if len(qcs) == 1:
            return [(qcs[0], new)]
        shared = self.shared_bytes(key_bytes, number)
        double = None if self.cipher is None else len(qcs) - 1 if double_at_last else 0
        return [(qc, shared + new if hop == double else shared) for hop, qc in enumerate(qcs)]

    def uses(
        self, ranges: Sequence[Range], key_bytes: int, number: int, *, double_at_last: bool = False
    ) -> list[tuple[Range, str]]:
        """What the ranges of a path are for, if `number` keys of `key_bytes` are made of them."""
        if len(ranges) == 1 and self.paths == 1:
            return [(ranges[0], KEY)]
        if self.cipher is None:
            return [(r, PAD) for r in ranges]
        n_bytes = self.shared_bytes(key_bytes, number)
        if double_at_last:
            pad, new = ranges[-1].split(n_bytes)
            return [(ranges[0], SHARED_KEY), *((r, PAD) for r in ranges[1:-1]), (pad, PAD), (new, NEW_KEYS)]
        shared, new = ranges[0].split(n_bytes)
        return [(shared, SHARED_KEY), (new, NEW_KEYS), *((r, PAD) for r in ranges[1:])]

    def per_key(self, hops: int, key_bytes: int, keys_ahead: int, *, double_at_last: bool = False) -> list[float]:
        """What a key of `key_bytes` costs on each link of a path, in bytes, where keys are asked for one by one."""
        number = self.number_at_once(1, keys_ahead)
        needs = self.needs([""] * hops, key_bytes, number, double_at_last=double_at_last)
        return [taken / number for _, taken in needs]

    def number_at_once(self, missing: int, keys_ahead: int) -> int:
        """How many keys to make where `missing` are needed: whole batches of `keys_ahead` in modes that look ahead.

        What a request for several keys leaves over is in the pool, so that it costs no more than `makeable` counted.
        """
        return -(-missing // keys_ahead) * keys_ahead if self.ahead else missing

    def tries(self, missing: int, keys_ahead: int, most: int) -> Sequence[int]:
        """How many keys to make where `missing` are needed, never more than `most` ahead: what to try, one after the
        other, as long as QCs are short of that.
        """
        number = max(missing, min(self.number_at_once(missing, min(keys_ahead, most)), most))
        return (number, missing) if number > missing else (missing,)

    def rhythm(self, interval_s: float, keys_ahead: int, waits_s: float) -> tuple[int, float]:
        """For a key each `interval_s`: how many are made at once, and every how many seconds.

        `waits_s`: how long a key that was made ahead may wait. One that would have to wait longer is never used.
        """
        number = self.number_at_once(1, keys_ahead)
        return number, interval_s * max(1, min(number, math.ceil(waits_s / interval_s)))

    def draws(
        self,
        qcs: Sequence[str],
        key_bytes: int,
        *,
        interval_s: float,
        keys_ahead: int,
        waits_s: float,
        when: Draw,
        double_at_last: bool = False,
    ) -> list[Draw]:
        """What a session with a key of `key_bytes` each `interval_s` takes of each QC of its path.

        `when` says from when until when; `waits_s`: how long a key that was made ahead may wait.
        """
        number, period_s = self.rhythm(interval_s, keys_ahead, waits_s)
        needs = self.needs(qcs, key_bytes, number, double_at_last=double_at_last)
        return [replace(when, n_bytes=n, period_s=period_s) for _, n in needs]

    def makeable(
        self, available: Sequence[int], key_bytes: int, keys_ahead: int, *, double_at_last: bool = False
    ) -> int:
        """How many keys of `key_bytes`, asked for one by one, a path can give whose QCs have `available` bytes."""
        if len(available) == 1:
            return available[0] // key_bytes
        double, others = (available[-1], min(available[:-1])) if double_at_last else (available[0], min(available[1:]))
        if self.cipher == AES_CCM:
            # Whole batches, and with what is left keys that are made alone.
            shared = self.shared_bytes(key_bytes, 1)
            batches = min(double // (shared + keys_ahead * key_bytes), others // shared)
            double, others = double - batches * (shared + keys_ahead * key_bytes), others - batches * shared
            return batches * keys_ahead + min(double // (shared + key_bytes), others // shared)
        units = 1 if self.cipher is None else 2
        return min(double // (units * key_bytes), others // key_bytes)

    def makeable_over(self, available: Sequence[Sequence[int]], key_bytes: int) -> int:
        """As `makeable`, over several paths. What a path cannot give any more, the others do, if they are `enough`."""
        return sorted((min(path) // key_bytes for path in available), reverse=True)[self.enough - 1]


def ahead(keys_ahead: int, interval_s: float, ttl_slots: int) -> int:
    """How many keys a session makes at once that asks for one each `interval_s`, in modes that look ahead.

    AUTO: as many as it asks for before the first of them is too old. More would be made for nobody.
    """
    if keys_ahead != AUTO:
        return keys_ahead
    return max(1, min(MOST_AHEAD, math.ceil(promised_slots(ttl_slots) / interval_s)))


# The paper's BASIC: a shared key from the first link is relayed under OTP hop by hop; the new key, from the first
# link too, goes to the last node under the shared one (OTP). Two keys' worth on the first link, one on every other.
# With `double_at_last`, which is ours, the new key lies in the last link, and its last node gives it to the first one.
BASIC = Mode("basic", cipher=OTP, ahead=False)
# The paper's QKP: one shared key carries several new ones at once under AES-CCM. Not perfectly secret, but cheap: on
# all links but one only the shared key is paid for.
QKP = Mode("qkp", cipher=AES_CCM, ahead=True)
# What trusted-relay networks in the field do: the first node draws the key and relays it under OTP; one unit a link.
RELAYED = Mode("otp", cipher=None, ahead=False)
# As OTP, with the work of all nodes side by side: the time of a key is its way to the last node and back.
PARALLEL = Mode("parallel", cipher=None, ahead=False, at_once=True)
# As PARALLEL, over several paths that share no relay, so that no relay can know the key: a part as long as the key over
# each. It takes all parts to have it, or, in the last of these modes, any two of three: one may be lost, or altered.
PATHS_2 = Mode("paths-2", cipher=None, ahead=False, at_once=True, paths=2, enough=2)
PATHS_3 = Mode("paths-3", cipher=None, ahead=False, at_once=True, paths=3, enough=3)
PATHS_2_OF_3 = Mode("paths-2of3", cipher=None, ahead=False, at_once=True, paths=3, enough=2)

MODES = {mode.name: mode for mode in (BASIC, QKP, RELAYED, PARALLEL, PATHS_2, PATHS_3, PATHS_2_OF_3)}
