"""The parameters of a network: names, limits, defaults and meanings, in one list. PURE.

The command line, the controller's interface and its description, nodes, sweeps and the live view take theirs from here;
`tests/unit/decisions/test_parameters.py` holds the YANG module to it, which stands alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from decisions.admission import ADMISSION_POLICIES
from decisions.choice import BOTH, MECHANISMS
from decisions.modes import AUTO, BASIC, MODES, MOST_AHEAD
from decisions.paths import PATH_POLICIES
from documents.checks import Malformed, integer


@dataclass(frozen=True, slots=True)
class Choice:
    """A parameter that is one of the words in a table. `meaning`: half a sentence for people."""

    name: str
    table: Mapping[str, Any]
    default: str
    meaning: str

    @property
    def values(self) -> tuple[str, ...]:
        """The words, those of the user's own policies among them."""
        return tuple(self.table)

    @property
    def syntax(self) -> str:
        """How a value is written."""
        return "|".join(self.values)

    @property
    def schema(self) -> dict[str, Any]:
        """In JSON Schema."""
        return {"type": "string", "enum": list(self.values)}

    def check(self, value: Any) -> str:
        """`value`, if it is one; Malformed."""
        if not isinstance(value, str) or value not in self.values:
            raise Malformed(self.name, f"one of {', '.join(self.values)}")
        return value

    def parse(self, text: str) -> str:
        """What a command line's text says; Malformed."""
        return self.check(text)


@dataclass(frozen=True, slots=True)
class Whole:
    """A parameter that is a whole number from `low` to `high`, in `unit`. `zero`: a word that stands for 0."""

    name: str
    low: int
    high: int
    default: int
    unit: str
    meaning: str
    zero: str = ""

    @property
    def syntax(self) -> str:
        """How a value is written."""
        return f"N|{self.zero}" if self.zero else "N"

    @property
    def schema(self) -> dict[str, Any]:
        """In JSON Schema."""
        return {"type": "integer", "minimum": self.low, "maximum": self.high}

    def check(self, value: Any) -> int:
        """`value`, if it is one; Malformed."""
        return integer(value, self.name, low=self.low, high=self.high)

    def parse(self, text: str) -> int:
        """What a command line's text says; Malformed."""
        if self.zero and text == self.zero:
            return 0
        return self.check(int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else text)


MODE = Choice("mode", MODES, BASIC.name, "how keys reach nodes several hops away")
TTL = Whole("ttl_slots", 1, 86_400, 15, "slots", "slots after which key material is erased")
KEYS_AHEAD = Whole(
    "keys_ahead", AUTO, MOST_AHEAD, 4, "keys",
    "keys made at once in modes that look ahead; auto: as many as will be used", zero="auto",
)  # fmt: skip
IMPLICIT_IDLE = Whole(
    "implicit_idle_s", 1, 86_400, 60, "seconds",
    "seconds after which a session that a request for keys opened ends if nobody asks for more; longer where its"
    " client asks more seldom, but regularly",
)  # fmt: skip
ADMISSION = Choice(
    "admission", ADMISSION_POLICIES, "none", "which key sessions are refused for want of key material"
)
PATH_POLICY = Choice("path_policy", PATH_POLICIES, "shortest", "which path a key session takes")
MECHANISM = Choice(
    "mechanism", MECHANISMS, BOTH, "whether key sessions go over trusted relays, over a QC past them, or either"
)

FOR_NODES: tuple[Choice | Whole, ...] = (MODE, TTL, KEYS_AHEAD, IMPLICIT_IDLE)
PARAMETERS: Mapping[str, Choice | Whole] = {p.name: p for p in (*FOR_NODES, ADMISSION, PATH_POLICY, MECHANISM)}

# Of a QC, in bytes a slot of a second: 16.8 Mbit/s. The fastest device of which we know makes 13.7 (Z. Yuan and others,
# Journal of Lightwave Technology 36, 3427, 2018). It bounds what a peer can make us keep for a slot.
MOST_RATE = 2 << 20


def checked(document: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters in `document`, each within its limits. Malformed names the wrong one."""
    for name in document:
        if name not in PARAMETERS:
            raise Malformed(name, f"one of {', '.join(PARAMETERS)}")
    return {name: PARAMETERS[name].check(value) for name, value in document.items()}


def rate(document: Mapping[str, Any]) -> tuple[int, int]:
    """A QC's rate out of members low and high, in bytes a slot. Malformed names the wrong one."""
    low = integer(document.get("low"), "low", low=0, high=MOST_RATE)
    return low, integer(document.get("high"), "high", low=low, high=MOST_RATE)


def parse_rate(text: str) -> tuple[int, int]:
    """The rate that LOW-HIGH says, in bytes a slot; Malformed."""
    ends = [int(e) for e in text.strip().split("-") if e.isascii() and e.isdecimal() and len(e) < 20]
    try:
        low, high = ends if text.count("-") == 1 else []
        return rate({"low": low, "high": high})
    except ValueError:
        raise Malformed("rate", f"LOW-HIGH in bytes a slot, such as 33-47, got {text!r}") from None
