"""Key requests in a CSV file of a user's own: who asked for a key to share with whom, when, and of what size. PURE.

A line a request, with the columns `time_s` (seconds after the beginning), `master`, `slave` (SAEs by name) and, if one
likes, `size_bits` (128 where there is none). The requests of a pair, of one size, are one key session. The session
begins with its first request. It ends after its last one, by the mean time between two of its requests.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from etsi.gs004 import QoS
from scenario.topology_description import Sae, TopologyError, choice, csv_number
from scenario.workload import Arrival

_COLUMNS, _SIZE = ("time_s", "master", "slave"), "size_bits"
_MAX_S, _MAX_BITS = 1e7, 1 << 20
_USUAL = QoS()


@dataclass(frozen=True, slots=True)
class KeyRequests:
    """Key sessions as they arrive, and by their number when each asks for keys, in seconds."""

    arrivals: Sequence[Arrival[Sae]]
    asks: Mapping[int, Sequence[float]]


def load(path: Path, saes: Sequence[Sae]) -> KeyRequests:
    """The requests in that file; TopologyError, one line that names line and column."""
    by_name = {sae.name: sae for sae in saes}
    times: dict[tuple[str, str, int], list[float]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.DictReader(file)
            for column in _COLUMNS:
                if column not in (lines.fieldnames or ()):
                    raise TopologyError(f"{path.name}: expected a first line with the columns {', '.join(_COLUMNS)}")
            for line in lines:
                where = f"{path.name}, line {lines.line_num}"
                pair = tuple(_sae(line[side], by_name, f"{where}, {side}") for side in ("master", "slave"))
                if by_name[pair[0]].node == by_name[pair[1]].node:
                    raise TopologyError(f"{where}, slave: expected an SAE of another node than the master's")
                at_s = csv_number(line["time_s"], f"{where}, time_s", _MAX_S)
                bits = int(csv_number(line.get(_SIZE) or str(_USUAL.key_size_bits), f"{where}, {_SIZE}", _MAX_BITS))
                if bits < 8 or bits % 8:
                    raise TopologyError(f"{where}, {_SIZE}: expected a multiple of 8, got {bits}")
                times.setdefault((pair[0], pair[1], bits), []).append(at_s)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TopologyError(f"{path}: {getattr(error, 'strerror', None) or 'expected a CSV file in UTF-8'}") from None
    if not times:
        raise TopologyError(f"{path.name}: expected at least one request")
    sessions = sorted((sorted(asked), key) for key, asked in times.items())
    arrivals, asks = [], {}
    for number, (asked, (master, slave, bits)) in enumerate(sessions):
        interval_s = (asked[-1] - asked[0]) / (len(asked) - 1) if len(asked) > 1 else _USUAL.interval_s
        interval_s = max(interval_s, 0.001)
        length_s = asked[-1] - asked[0] + interval_s
        arrivals.append(Arrival(asked[0], by_name[master], by_name[slave], length_s, QoS(bits, interval_s)))
        asks[number] = asked
    return KeyRequests(arrivals, asks)


def _sae(name: str | None, known: Mapping[str, Sae], where: str) -> str:
    if name not in known:
        raise TopologyError(f"{where}: unknown SAE {name!r:.60}; {choice(name, list(known), 'SAEs')}")
    return str(name)
