"""Which nodes learn a key, in each mode, and why; what docs/stories.md explains. PURE.

A trusted relay is trusted because it could know. What counts here is what a node had in its memory, not what it looked
at: a node that is honest erases it, a node that was taken over does not.

In `basic` and `qkp` the first QC of the path holds both the shared key S and, behind it, the new keys. Both ends of a
QC hold all of it. So the first relay has the keys themselves, and not only S: it takes their bytes out of its stream
in order to erase them. The relays behind it have S alone. The keys under S go from the first node to the last one
directly, inside TLS, which those relays cannot open, so that they would need S and that message to have the key.
In `otp` every relay opens the key in order to pass it on.
"""

from __future__ import annotations

from collections.abc import Sequence

from decisions.modes import AES_CCM, MODES
from testbed.stories.model import Learned

THE_KEY, SHARED_KEY, NOTHING = "the key", "the shared key", "nothing"


def learned(mode: str, path: Sequence[str]) -> list[Learned]:
    """What the nodes of `path`, the master's first, learn of a key that was made in `mode`."""
    if len(path) < 2:
        return []
    if len(path) == 2:
        return [_end(path[0], "its end of the QC"), _end(path[1], "its end of the same QC")]
    cipher = MODES[mode].cipher
    if cipher is None:
        return [
            _end(path[0], "it drew the key"),
            *(Learned(n, THE_KEY, "it opened the key under one pad and sealed it under the next") for n in path[1:-1]),
            _end(path[-1], "it opened the key under the last pad"),
        ]
    sealed = "AES-CCM under the shared key" if cipher == AES_CCM else "one-time pad with the shared key"
    return [
        _end(path[0], "it made both keys of its end of the first QC"),
        Learned(
            path[1], THE_KEY,
            "its end of the first QC holds the key's bytes, too: it erases them, and passes on the shared key",
        ),
        *(
            Learned(
                n, SHARED_KEY,
                f"it passed that on; with the message from {path[0]} to {path[-1]} ({sealed}, inside TLS) it would have"
                " the key",
            )
            for n in path[2:-1]
        ),
        _end(path[-1], f"it opened the key with the shared key ({sealed})"),
    ]  # fmt: skip


def _end(node: str, how: str) -> Learned:
    return Learned(node, THE_KEY, how)
