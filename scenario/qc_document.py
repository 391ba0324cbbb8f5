"""QCs as a topology file describes them: which model each follows, with which parameters. Errors name the field."""

from __future__ import annotations

import csv
import functools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from urllib.parse import urlsplit

from decisions.parameters import MOST_RATE
from etsi.gs014 import MOST_ANSWER_BITS, MOST_KEYS
from scenario import yaml_documents
from scenario.quantum import decoy_bb84
from scenario.quantum.decoy_bb84 import Device
from scenario.quantum.qc_models import BLOCKS, DECOY, MODELS, SPREADS, TRACE, UNIFORM, Blocks, DecoyBb84, Drift, Trace
from scenario.topology_description import (
    Field,
    Gs014,
    Gs014End,
    Qc,
    TopologyError,
    checked_rate,
    choice,
    csv_number,
)

_DEVICES = Path(__file__).with_name("devices.yaml")
_MOST_S, _MOST_BLOCK = 86_400.0, MOST_RATE
MOST_DB = 100.0  # of a fibre
_LEAST_EVERY_S = 0.1  # between two requests for keys
_MOST_ROWS, _MOST_BITS = 1_000_000, 1e12
_COLUMNS = ("time_s", "bits", "qber_percent")
# Of a device: what each figure may be at most.
_MOST: dict[str, float] = {
    "pulses_per_s": 1e11, "signal": 10, "decoy": 10, "signal_share": 1, "sifted": 1, "efficiency": 1, "dark": 1,
    "misalignment": 0.5, "correction": 5, "dead_time_s": 1, "db_per_km": 10,
}  # fmt: skip


def qc(field: Field, name: str, length_km: float | None, fibre_db: float | None, ends: Sequence[str]) -> Qc:
    """The QC of that name between the nodes `ends`, on a fibre of that length and loss, as far as they are known;
    TopologyError.
    """
    if isinstance(field.value, dict) and "source" in field.value:
        return _gs014(field.members("source")["source"].members("gs014")["gs014"], name, ends)
    said = field.value.get("model", UNIFORM) if isinstance(field.value, dict) else UNIFORM
    if said not in MODELS:
        raise Field(field.source, f"{field.path}.model", said).error(f"unknown model; {choice(said, MODELS, 'models')}")
    if said == DECOY:
        return _decoy(field, name, length_km, fibre_db)
    if said == BLOCKS:
        return _blocks(field, name)
    if said == TRACE:
        return _trace(field, name)
    members = field.members(model=UNIFORM, low_bytes_per_slot=33, high_bytes_per_slot=47)
    return Qc(name, *checked_rate(members["low_bytes_per_slot"], members["high_bytes_per_slot"]))


def device(field: Field) -> Device:
    """The device that a file calls by the name of one that ships, or by the path of a YAML file with its figures."""
    said = field.text()
    if Path(said).suffix in (".yaml", ".yml"):
        path = Path(field.source).parent / said
        return _device(Field(said, "", yaml_documents.read(path)))
    known = shipped()
    if said not in known:
        raise field.error(f"unknown device; {choice(said, list(known), 'devices')}; or a file that ends in .yaml")
    return known[said]


@functools.cache
def shipped() -> Mapping[str, Device]:
    """The devices that ship, by name."""
    found = Field(_DEVICES.name, "", yaml_documents.read(_DEVICES))
    assert isinstance(found.value, dict)  # noqa: S101 - it is ours
    return {name: _device(Field(_DEVICES.name, name, figures)) for name, figures in found.value.items()}


def _device(field: Field) -> Device:
    members = field.members(
        *(f.name for f in fields(Device) if f.name not in ("dead_time_s", "db_per_km")),
        source="", dead_time_s=0.0, db_per_km=0.2,
    )  # fmt: skip
    found = Device(**{name: members[name].number(most) for name, most in _MOST.items()})
    for name in ("pulses_per_s", "signal", "decoy", "signal_share", "sifted", "efficiency", "correction"):
        if not getattr(found, name):
            raise members[name].error("expected a number above 0")
    if not found.decoy < found.signal:
        raise members["decoy"].error(f"expected less than signal, which is {found.signal:g}")
    return found


def _decoy(field: Field, name: str, length_km: float | None, fibre_db: float | None) -> Qc:
    members = field.members("model", "device", loss_db=None, spread_percent=0, memory_s=600, daily_percent=0)
    figures = device(members["device"])
    if "loss_db" in members:
        loss_db = members["loss_db"].number(MOST_DB)
    elif fibre_db is not None:
        loss_db = fibre_db
    elif length_km is not None:
        loss_db = figures.db_per_km * length_km
    else:
        raise field.error("expected loss_db, or loss_db or length_km of the fibre; got none")
    spread, daily = (members[f"{which}_percent"].number(100) / 100 for which in ("spread", "daily"))
    memory_s = members["memory_s"].number(_MOST_S)
    if memory_s < 1:
        raise members["memory_s"].expected("1 s or more")
    model = DecoyBb84(figures, loss_db, Drift(spread, memory_s, daily))
    mean = model.mean_bytes_per_s
    if not mean:
        reach = decoy_bb84.reach_db(figures)
        km = f", which are {reach / figures.db_per_km:.1f} km" if figures.db_per_km else ""
        raise field.error(f"no key comes over {loss_db:.1f} dB; with this device one comes up to {reach:.1f} dB{km}")
    most = SPREADS * spread + daily
    return Qc(name, int(mean * max(0.0, 1 - most)), math.ceil(mean * (1 + most)), model)


def _blocks(field: Field, name: str) -> Qc:
    members = field.members("model", "block_bytes", "every_s", jitter_s=0, qber_percent=2)
    block, every_s = members["block_bytes"].whole(_MOST_BLOCK), members["every_s"].number(_MOST_S)
    if not block:
        raise members["block_bytes"].error("expected a number above 0")
    if every_s < 1:
        raise members["every_s"].expected("1 s or more")
    jitter_s, qber = members["jitter_s"].number(every_s), members["qber_percent"].number(50) / 100
    return Qc(name, 0, block, Blocks(block, every_s, jitter_s, qber))


def _trace(field: Field, name: str) -> Qc:
    members = field.members("model", "file", once=False)
    path = Path(field.source).parent / members["file"].text()
    times, bits, qber = _rows(path)
    model = Trace(times, bits, qber, members["once"].truth())
    before = [0.0, *times]
    most = max(math.ceil(n / 8 / min(1.0, b - a)) for n, a, b in zip(bits, before, times, strict=False))
    if most > _MOST_BLOCK:
        raise members["file"].error(f"expected at most {_MOST_BLOCK} bytes in a second, got {most}")
    return Qc(name, 0, most, model)


def _gs014(field: Field, name: str, ends: Sequence[str]) -> Qc:
    members = field.members("ends", number=8, size_bits=256, every_s=1)
    number, every_s = members["number"].whole(MOST_KEYS), members["every_s"].number(_MOST_S)
    size_bits = members["size_bits"].whole(MOST_ANSWER_BITS)
    if not number:
        raise members["number"].error("expected a number above 0")
    if not size_bits or size_bits % 8:
        raise members["size_bits"].expected("a multiple of 8 above 0")
    if number * size_bits > MOST_ANSWER_BITS:
        raise members["number"].error(f"expected at most {MOST_ANSWER_BITS} bits at a time, got {number * size_bits}")
    if every_s < _LEAST_EVERY_S or number * size_bits / 8 / every_s > _MOST_BLOCK:
        raise members["every_s"].expected(f"{_LEAST_EVERY_S} s or more, and at most {_MOST_BLOCK} bytes a second")
    found = {node: _gs014_end(end) for node, end in members["ends"].members(*ends).items()}
    if len({end.sae_id for end in found.values()}) < len(found):
        raise members["ends"].error("expected another sae_id at each end")
    # What comes at a time, or each slot where that is shorter.
    block, slots = (round(number * size_bits / 8 / every_s), 1.0) if every_s < 1 else (number * size_bits // 8, every_s)
    return Qc(name, 0, block, Blocks(block, slots), Gs014(found, number, size_bits, every_s))


def _gs014_end(field: Field) -> Gs014End:
    members = field.members("url", "sae_id", "cert", "key", "ca")
    url = members["url"].text()
    try:
        parts = urlsplit(url)
        is_right = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_right = False
    if not is_right or parts.username or parts.query or parts.fragment:
        raise members["url"].expected("https://HOST:PORT of the device's KME")
    files = {name: _file(members[name]) for name in ("cert", "key", "ca")}
    if files["key"].stat().st_mode & 0o077:
        raise members["key"].error(f"expected a file that only its owner can read: chmod 600 {files['key']}")
    return Gs014End(url, members["sae_id"].sae_id(), *files.values())


def _file(field: Field) -> Path:
    """The file that a field names, seen from where the topology lies."""
    path = (Path(field.source).parent / field.text()).absolute()
    if not path.is_file() or not os.access(path, os.R_OK):
        raise field.error(f"expected a file that can be read, and {path} is none")
    return path


def _rows(path: Path) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Times, bits and QBERs (0 to 0.5) of a CSV file; TopologyError names line and column."""
    times: list[float] = []
    bits: list[float] = []
    qber: list[float] = []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.DictReader(file)
            if missing := [column for column in _COLUMNS if column not in (lines.fieldnames or ())]:
                raise TopologyError(f"{path.name}: expected a first line with {', '.join(_COLUMNS)}; no {missing[0]}")
            for line in lines:
                where = f"{path.name}, line {lines.line_num}"
                time_s = csv_number(line["time_s"], f"{where}, time_s", 1e9)
                if time_s <= (times[-1] if times else 0.0):
                    raise TopologyError(f"{where}, time_s: expected more than before, {times[-1] if times else 0:g}")
                times.append(time_s)
                bits.append(csv_number(line["bits"], f"{where}, bits", _MOST_BITS))
                qber.append(csv_number(line["qber_percent"], f"{where}, qber_percent", 50) / 100)
                if len(times) > _MOST_ROWS:
                    raise TopologyError(f"{path.name}: expected at most {_MOST_ROWS} lines")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TopologyError(f"{path}: {getattr(error, 'strerror', None) or 'expected a CSV file in UTF-8'}") from None
    if not sum(bits):
        raise TopologyError(f"{path.name}: expected at least one line with bits")
    return tuple(times), tuple(bits), tuple(qber)
