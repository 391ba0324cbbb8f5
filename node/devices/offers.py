"""PURE: what the two ends of a QC with devices tell each other, and what follows from it.

One end, whose name comes first in the alphabet, leads. It asks its device for keys, lays them into the key stream, and
offers the block to the other end: key IDs, place, age and digest, never a key. The other end asks for offers again and
again. It asks its device for the keys of those IDs, and lays them in the same place if the digest is the same. What it
has laid, or has given up, it says with its next question. So either end may ask again whatever was lost on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from documents.checks import Malformed, integer, mapping, number, sequence, text, uuid_text
from etsi.gs014 import MOST_ANSWER_BITS, MOST_KEYS
from node.material.blocks import DIGEST_BYTES
from node.material.key_store import Offer, Suspicion

DIFFERS, REPEATED = "differs", "repeated"
# Why the devices of a QC are not trusted, for people.
CAUSES = {
    DIFFERS: "the devices at its two ends gave different bytes under the same key IDs",
    REPEATED: "a device gave a key again that it had given before",
}
_MOST_EPOCH, _MOST = (1 << 63) - 1, (1 << 62) - 1
_LONGEST_AGE_S = 1e9


@dataclass(frozen=True, slots=True)
class Told:
    """What the end that follows says: it has laid, or given up, the epoch's bytes before `done`.

    `ready`: it wants more, and its device answers. `refused`: an epoch that it has left behind.
    """

    epoch: int
    done: int
    ready: bool
    refused: int | None = None
    suspicion: Suspicion | None = None

    def to_json(self, qc: str) -> dict[str, Any]:
        """The document that `told` reads."""
        return {
            "qc": qc, "epoch": self.epoch, "done": self.done, "ready": self.ready, "refused": self.refused,
            "suspicion": _suspicion_to_json(self.suspicion),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """What the end that leads answers: its epoch, from where on it offers, the first offer, and how old that is, s."""

    epoch: int
    begins: int
    offer: Offer | None = None
    age_s: float = 0.0
    suspicion: Suspicion | None = None

    def to_json(self) -> dict[str, Any]:
        """The document that `answer` reads."""
        offer = None if self.offer is None else {
            "start": self.offer.start, "end": self.offer.end, "digest": self.offer.digest.hex(),
            "key_ids": list(self.offer.key_ids), "age_s": self.age_s,
        }  # fmt: skip
        return {
            "epoch": self.epoch, "begins": self.begins, "offer": offer,
            "suspicion": _suspicion_to_json(self.suspicion),
        }  # fmt: skip


def told(document: Mapping[str, Any]) -> Told:
    """What is told in a document; Malformed."""
    refused, ready = document.get("refused"), document.get("ready")
    if not isinstance(ready, bool):
        raise Malformed("ready", "true or false")
    return Told(
        integer(document.get("epoch"), "epoch", low=0, high=_MOST_EPOCH),
        integer(document.get("done"), "done", low=0, high=_MOST), ready,
        None if refused is None else integer(refused, "refused", low=0, high=_MOST_EPOCH),
        _suspicion(document.get("suspicion")),
    )  # fmt: skip


def answer(body: Any) -> Answer:
    """The answer in a document; Malformed."""
    document = mapping(body, "body")
    epoch = integer(document.get("epoch"), "epoch", low=0, high=_MOST_EPOCH)
    begins = integer(document.get("begins"), "begins", low=0, high=_MOST)
    suspicion, given = _suspicion(document.get("suspicion")), document.get("offer")
    if given is None:
        return Answer(epoch, begins, suspicion=suspicion)
    given = mapping(given, "offer")
    start = integer(given.get("start"), "offer.start", low=begins, high=begins)
    end = integer(given.get("end"), "offer.end", low=start + 1, high=start + MOST_ANSWER_BITS // 8)
    ids = [uuid_text(key_id, "offer.key_ids") for key_id in sequence(given.get("key_ids"), "offer.key_ids",
                                                                      longest=MOST_KEYS)]  # fmt: skip
    if not ids or len(set(ids)) != len(ids):
        raise Malformed("offer.key_ids", "key IDs, each once")
    try:
        digest = bytes.fromhex(text(given.get("digest"), "offer.digest"))
    except ValueError:
        digest = b""
    if len(digest) != DIGEST_BYTES:
        raise Malformed("offer.digest", f"{DIGEST_BYTES} bytes in hexadecimal digits")
    age_s = number(given.get("age_s"), "offer.age_s", low=0, high=_LONGEST_AGE_S)
    return Answer(epoch, begins, Offer(epoch, start, end, 0.0, digest, tuple(ids)), age_s, suspicion)


def is_behind(said: Told, epoch: int, head: int) -> bool:
    """Whether the end that leads, which is at `head` of `epoch`, has forgotten what it had laid: it must begin anew.

    Its local database is an older copy. In that epoch it would lay other bytes where the other end has some already.
    """
    return epoch != 0 and (said.refused == epoch or (said.epoch == epoch and said.done > head))


def settled(offers: Sequence[Offer], said: Told, *, epoch: int, oldest: float) -> list[Offer]:
    """Those of the offers that the other end has, or has given up, or that are too old, or of an earlier epoch."""
    return [
        offer for offer in offers
        if offer.epoch != epoch or offer.made <= oldest or (said.epoch == epoch and offer.end <= said.done)
    ]  # fmt: skip


def _suspicion_to_json(suspicion: Suspicion | None) -> dict[str, str] | None:
    return None if suspicion is None else {"id": suspicion.id, "cause": suspicion.cause}


def _suspicion(value: Any) -> Suspicion | None:
    if value is None:
        return None
    given = mapping(value, "suspicion")
    cause = text(given.get("cause"), "suspicion.cause")
    if cause not in CAUSES:
        raise Malformed("suspicion.cause", f"one of {', '.join(CAUSES)}")
    return Suspicion(uuid_text(given.get("id"), "suspicion.id"), cause)
