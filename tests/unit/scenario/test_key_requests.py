"""Key requests in a CSV file."""

from __future__ import annotations

from pathlib import Path

import pytest

from etsi.gs004 import QoS
from scenario.key_requests import load
from scenario.topology import load as load_topology
from scenario.topology_description import TopologyError

HEAD = "time_s,master,slave\n"
PAIR = load_topology("pair", Path(__file__).resolve().parents[3] / "topologies")


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.csv"
    path.write_text(text)
    return path


def test_requests_of_a_pair_are_one_session(tmp_path):
    """From the first one on, in whatever order they stand; keys of another size are another session."""
    text = "time_s,master,slave,size_bits\n9,alice-mail,bob-mail,\n3,alice-mail,bob-mail,\n5,bob-mail,alice-mail,256\n"

    found = load(written(tmp_path, text), PAIR.saes)

    assert [(a.at_s, a.master.name, a.slave.name, a.length_s, a.qos) for a in found.arrivals] == [
        (3.0, "alice-mail", "bob-mail", 12.0, QoS(128, 6.0)), (5.0, "bob-mail", "alice-mail", 5.0, QoS(256, 5.0)),
    ]  # fmt: skip
    assert found.asks == {0: [3.0, 9.0], 1: [5.0]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "mine.csv: expected a first line with the columns time_s, master, slave"),
        ("time_s,master\n", "mine.csv: expected a first line with the columns"),
        (HEAD, "mine.csv: expected at least one request"),
        (HEAD + "1,alice-mail,carol\n", "mine.csv, line 2, slave: unknown SAE 'carol'"),
        (HEAD + "1,alice-mail\n", "mine.csv, line 2, slave: unknown SAE None"),
        (HEAD + "1,alice-mail,alice-mail\n", "mine.csv, line 2, slave: expected an SAE of another node"),
        (HEAD + "soon,alice-mail,bob-mail\n", "line 2, time_s: expected a number from 0 to 1e+07, got 'soon'"),
        (HEAD + "-1,alice-mail,bob-mail\n", "line 2, time_s: expected a number from 0 to 1e+07, got '-1'"),
        (HEAD.strip() + ",size_bits\n1,alice-mail,bob-mail,9\n", "line 2, size_bits: expected a multiple of 8, got 9"),
    ],
)
def test_wrong_line_is_named(tmp_path, text, said):
    with pytest.raises(TopologyError) as refused:
        load(written(tmp_path, text), PAIR.saes)

    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(TopologyError, match="No such file"):
        load(tmp_path / "none.csv", PAIR.saes)
    (tmp_path / "bad.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TopologyError, match="expected a CSV file in UTF-8"):
        load(tmp_path / "bad.csv", PAIR.saes)
