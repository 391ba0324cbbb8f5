"""QCs in a topology file: each model with its parameters, and what is wrong is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scenario import outages, yaml_documents
from scenario.qc_document import qc
from scenario.quantum import decoy_bb84
from scenario.quantum.qc_models import Blocks, DecoyBb84, Trace, under_eve
from scenario.topology import load
from scenario.topology_description import Field, TopologyError
from scenario.topology_document import build

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "qcs.md").read_text(encoding="utf-8")
CSV = "time_s,bits,qber_percent\n2,800,1\n10,0,2\n20,4000,3\n"


def read(value: object, directory: Path | str = ".", length_km: float | None = 10.0):
    """The QC that a file in that folder describes."""
    return qc(Field(str(Path(directory) / "mine.yaml"), "links[0].qcs[0]", value), "a-b/1", length_km, None, ("a", "b"))


def refusal(value: object, directory: Path | str = ".", length_km: float | None = 10.0) -> str:
    """What is said of one that cannot be."""
    with pytest.raises(TopologyError) as caught:
        read(value, directory, length_km)
    return str(caught.value)


def test_usual_qc_is_uniform():
    """From 33 to 47 bytes a slot."""
    assert read({}) == read({"model": "uniform"})
    assert (read({}).low_bytes_per_slot, read({}).high_bytes_per_slot, read({}).model) == (33, 47, None)
    assert read({}).mean_bytes_per_slot == 40


def test_decoy_qc_has_the_rate_of_its_fibre():
    """By its length, or by its loss."""
    found = read({"model": "decoy_bb84", "device": "gys"})
    same = read({"model": "decoy_bb84", "device": "gys", "loss_db": 2.1}, length_km=None)

    assert isinstance(found.model, DecoyBb84)
    assert found.model.loss_db == pytest.approx(2.1)
    assert found.mean_bytes_per_slot == pytest.approx(same.mean_bytes_per_slot)
    assert found.mean_bytes_per_slot == decoy_bb84.rate_bps(found.model.device, found.model.loss_db) / 8
    assert found.low_bytes_per_slot == int(found.mean_bytes_per_slot)


def test_loss_without_a_key_is_said_with_what_there_would_be():
    """In dB and in kilometres."""
    said = refusal({"model": "decoy_bb84", "device": "gys"}, length_km=200.0)

    assert "links[0].qcs[0]: no key comes over 42.0 dB" in said
    assert "up to 2" in said
    assert "km" in said


def test_device_may_be_a_file_of_ones_own(tmp_path):
    """Beside the topology; a wrong figure is named with the file."""
    figures = "pulses_per_s: 1.0e+9\nsignal: 0.4\ndecoy: 0.1\nsignal_share: 0.9\nsifted: 0.9\nefficiency: 0.2\n"
    figures += "dark: 1.0e-5\nmisalignment: 0.02\ncorrection: 1.1\n"
    (tmp_path / "mine-device.yaml").write_text(figures)
    said = {"model": "decoy_bb84", "device": "mine-device.yaml"}
    assert read(said, tmp_path).mean_bytes_per_slot > 100_000

    (tmp_path / "mine-device.yaml").write_text(figures.replace("0.2\n", "1.2\n"))
    assert "mine-device.yaml: efficiency: expected a plain number from 0 to 1" in refusal(said, tmp_path)
    (tmp_path / "mine-device.yaml").write_text(figures.replace("decoy: 0.1", "decoy: 0.5"))
    assert "mine-device.yaml: decoy: expected less than signal" in refusal(said, tmp_path)


def test_blocks_are_as_the_file_says():
    """With their mean rate."""
    found = read({"model": "blocks", "block_bytes": 204_800, "every_s": 133, "jitter_s": 10})

    assert found.model == Blocks(204_800, 133.0, 10.0, 0.02)
    assert (found.low_bytes_per_slot, found.high_bytes_per_slot) == (0, 204_800)
    assert found.mean_bytes_per_slot == pytest.approx(1539.8, abs=0.1)


def test_trace_is_read_from_its_file(tmp_path):
    """Beside the topology."""
    (tmp_path / "day.csv").write_text(CSV)
    found = read({"model": "trace", "file": "day.csv", "once": True}, tmp_path)

    assert found.model == Trace((2.0, 10.0, 20.0), (800.0, 0.0, 4000.0), (0.01, 0.02, 0.03), once=True)
    assert found.mean_bytes_per_slot == 30


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "expected a first line"), ("time_s,bits\n1,1\n", "no qber_percent"),
     (CSV + "20,1,1\n", "line 5, time_s: expected more than before, 20"),
     (CSV + "30,-1,1\n", "line 5, bits: expected a number from 0"), (CSV + "30,x,1\n", "line 5, bits"),
     (CSV + "30,1,51\n", "line 5, qber_percent: expected a number from 0 to 50"),
     (CSV + "30,1\n", "line 5, qber_percent"),
     ("time_s,bits,qber_percent\n1,0,1\n", "at least one line with bits"), (CSV + "20.1,1e9,1\n", "bytes in a second")],
    ids=lambda v: v[-20:],
)  # fmt: skip
def test_trace_that_is_wrong_names_line_and_column(tmp_path, text, says):
    """And what was expected."""
    (tmp_path / "day.csv").write_text(text)

    assert says in refusal({"model": "trace", "file": "day.csv"}, tmp_path)


@pytest.mark.parametrize(
    ("value", "says"),
    [({"model": "decoy"}, "qcs[0].model: unknown model; did you mean 'decoy_bb84'?"), ({"model": 1}, "qcs[0].model"),
     ({"model": "decoy_bb84"}, "device: missing"), ({"model": "decoy_bb84", "device": "gis"}, "did you mean 'gys'?"),
     ({"model": "decoy_bb84", "device": "no.yaml"}, "No such file"),
     ({"model": "decoy_bb84", "device": "gys", "memory_s": 0}, "memory_s: expected 1 s or more"),
     ({"model": "blocks", "every_s": 1}, "block_bytes: missing"),
     ({"model": "blocks", "block_bytes": 0, "every_s": 1}, "block_bytes: expected a number above 0"),
     ({"model": "blocks", "block_bytes": 1, "every_s": 0}, "every_s: expected 1 s or more"),
     ({"model": "blocks", "block_bytes": 1, "every_s": 2, "low_bytes_per_slot": 1}, "unknown member"),
     ({"model": "trace", "file": "no.csv"}, "No such file"), ("x", "expected a mapping")],
    ids=str,
)  # fmt: skip
def test_qc_that_is_wrong_is_named(value, says):
    """With the field and what was expected."""
    assert says in refusal(value)


def test_decoy_without_length_or_loss_is_refused():
    """A fibre that has a delay alone."""
    said = refusal({"model": "decoy_bb84", "device": "gys"}, length_km=None)

    assert "expected loss_db, or loss_db or length_km of the fibre" in said


def test_examples_of_the_page_are_right(tmp_path):
    """Its topology is one, its trace is one, and so is its plan of who listens when."""
    example, eves, with_a_device = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    topology = build(Field("kinds.yaml", "", yaml_documents.parse(example, "kinds.yaml")))
    assert [type(q.model).__name__ for q in topology.links[0].qcs] == ["NoneType", "DecoyBb84", "Blocks"]

    for name in ("sae-alice.pem", "sae-alice.key", "sae-bob.pem", "sae-bob.key", "ca.pem"):
        (tmp_path / "device/pki").mkdir(parents=True, exist_ok=True)
        (tmp_path / "device/pki" / name).touch(mode=0o600)
    path = tmp_path / "with-a-device.yaml"
    path.write_text(with_a_device)
    (link,) = load(str(path), tmp_path).links
    poliqi = load("poliqi", ROOT / "topologies")
    assert [end.sae_id for end in link.qcs[0].source.ends.values()] == [s.id for s in poliqi.saes if s.external][:2]
    assert link.qcs[0].mean_bytes_per_slot == 16

    told = [
        (outage.kind, round(100 * under_eve(0.02, outage.fraction), 1))
        for outage in outages.parse(yaml_documents.parse(eves, "eves.yaml"), "eves.yaml", poliqi)
    ]
    assert told == [("eve", 4.4), ("eve", 14.0)]

    (tmp_path / "day.csv").write_text(re.findall(r"```csv\n(.*?)```", PAGE, re.S)[0])
    assert read({"model": "trace", "file": "day.csv"}, tmp_path).mean_bytes_per_slot == pytest.approx(59_200 / 8 / 240)
