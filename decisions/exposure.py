"""PURE: which nodes learn a key, in each mode, and why; docs/stories.md explains it.

A trusted relay is trusted because it could know. What counts here is what a node had in its memory, not what it looked
at: a node that is honest erases it, a node that was taken over does not.

In `basic` and `qkp` the first QC of the path holds both the shared key S and, behind it, the new keys. Both ends of a
QC hold all of it. So the first relay has the keys themselves, and not only S: it takes their bytes out of its stream
in order to erase them. The relays behind it have S alone. The keys under S go from the first node to the last one
directly, inside TLS, which those relays cannot open, so that they would need S and that message to have the key.
Where the last QC pays double, it holds the new keys, and the last relay has them; they go the other way under S.
In `otp` every relay opens the key in order to pass it on. In `parallel` a relay has the pads of its two links, and
neither the key nor what lies under them comes to it. In `paths-2` and the like that holds for the part of the key that
goes over its path, so that even with the messages to the last node, inside TLS, it would not have the key. A node that
the light of an optical bypass goes past is no relay: nothing is measured there, and it has no end of the QC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from decisions.modes import AES_CCM

THE_KEY, SHARED_KEY, NOTHING = "the key", "the shared key", "nothing"


@dataclass(frozen=True, slots=True)
class Learned:
    """A node, what of the key it learned ("the key", "the shared key", "nothing"), and how that came about."""

    node: str
    what: str
    how: str


def learned(
    cipher: str | None,
    path: Sequence[str],
    *,
    double_at_last: bool = False,
    at_once: bool = False,
    enough: int | None = None,
) -> list[Learned]:
    """What the nodes of `path`, the master's first, learn of a key that was made in a mode with that cipher.

    `double_at_last`: the new keys lay in the last QC, not in the first one. `at_once`: no node waited for another one.
    `enough`: the path is several, and so many parts of the key make it.
    """
    if len(path) < 2:
        return []
    if enough is not None:
        had = f"it had the pads of its links; with the messages to {path[-1]} (inside TLS) it would have one part"
        return [
            _end(path[0], "it drew the key, and made parts of it"),
            *(Learned(n, NOTHING, f"{had} of the key, which takes {enough}") for n in path[1:-1]),
            _end(path[-1], f"it put {enough} parts of the key together"),
        ]
    if len(path) == 2:
        return [_end(path[0], "its end of the QC"), _end(path[1], "its end of the same QC")]
    if at_once:
        had = f"it had the pads of its links; with the messages to {path[-1]} (inside TLS) it would have the key"
        return [
            _end(path[0], "it drew the key"),
            *(Learned(n, NOTHING, had) for n in path[1:-1]),
            _end(path[-1], "it opened the key with the last pad and the differences of the others"),
        ]
    if cipher is None:
        return [
            _end(path[0], "it drew the key"),
            *(Learned(n, THE_KEY, "it opened the key under one pad and sealed it under the next") for n in path[1:-1]),
            _end(path[-1], "it opened the key under the last pad"),
        ]
    sealed = "AES-CCM under the shared key" if cipher == AES_CCM else "one-time pad with the shared key"
    opened = f"it opened the key with the shared key ({sealed})"
    which, giver, taker = ("last", path[-1], path[0]) if double_at_last else ("first", path[0], path[-1])
    beside = path[-2] if double_at_last else path[1]
    return [
        _end(path[0], opened if double_at_last else "it made both keys of its end of the first QC"),
        *(
            Learned(
                n, THE_KEY,
                f"its end of the {which} QC holds the key's bytes, too: it erases them, and passes on the shared key",
            )
            if n == beside
            else Learned(
                n, SHARED_KEY,
                f"it passed that on; with the message from {giver} to {taker} ({sealed}, inside TLS) it would have"
                " the key",
            )
            for n in path[1:-1]
        ),
        _end(path[-1], "it made the key of its end of the last QC" if double_at_last else opened),
    ]  # fmt: skip


def gone_past(past: Mapping[str, Sequence[str]], path: Sequence[str]) -> list[Learned]:
    """What those learn past whom the light of QCs goes, by QC: nothing, unless they are nodes of `path` besides."""
    return [
        Learned(node, NOTHING, f"the light of QC {qc} goes past it: it only switches it")
        for qc, nodes in past.items()
        for node in nodes
        if node not in path
    ]


def _end(node: str, how: str) -> Learned:
    return Learned(node, THE_KEY, how)
