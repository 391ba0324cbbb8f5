"""Series in virtual time: `experiment fig8 --virtual`, `experiment sweep --virtual`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from testbed.errors import UserError
from testbed.experiments import command

TINY = """
name: tiny
applications: 12
gap_s: {exponential: 1}
length_s: {constant: 40}
interval_s: {constant: 2.5}
on_key_failure: go_on
"""


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return str(path)


def made(*arguments: str) -> None:
    """That experiment, without root or a network."""
    assert command.main(arguments, pytest.fail) == 0


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "results.csv").read_text().splitlines()))


def test_figure_8_in_virtual_time_has_all_that_one_of_networks_has(tmp_path, tiny, capsys):
    """Shares of each scenario, a planner, a figure, a report that says what it is, and a command to make it again."""
    made("fig8", "--virtual", "--quick", "--seed", "1", "--workload", tiny, "--out", str(tmp_path))

    out = tmp_path / "fig8-tiny-virtual"
    shares = {(row["scenario"], row["measure"]): float(row["median"]) for row in rows(out)}
    assert {scenario for scenario, _ in shares} == {"BASIC", "QKP", "BASIC+REJ", "QKP+REJ"}
    assert shares["BASIC", "connections with an error"] > 0, "a load that the network carries shows nothing"
    assert shares["QKP+REJ", "refused by an all-knowing planner"] <= shares["QKP+REJ", "applications refused"]
    assert (out / "figure.svg").is_file()
    document = json.loads((out / "results.json").read_text())
    assert document["title"].endswith(", in virtual time")
    assert document["command"].startswith("python testbed/run.py experiment fig8 --virtual --quick")
    assert "nothing: in virtual time" in (tmp_path / "report.html").read_text()
    assert "2 repeats, 2 runs, in virtual time" in capsys.readouterr().out


def test_sweep_in_virtual_time_goes_over_policies_and_loads_and_measures_no_times(tmp_path, tiny):
    """What is offered, refused and broken, at every point."""
    options = ["--workload", tiny, "--repeat", "2", "--seed", "1", "--out", str(tmp_path)]

    made("sweep", "--virtual", *options, "--over", "admission=none,calendar", "--over", "qc-rate=20-30,100-120")

    found = rows(tmp_path / "sweep-tiny-virtual")
    assert {row["measure"] for row in found} == {
        "applications refused", "connections with an error", "key requests failed",
    }  # fmt: skip
    assert len(found) == 3 * 4
    broken = {(row["admission"], row["qc-rate"]): float(row["median"]) for row in found
              if row["measure"] == "connections with an error"}  # fmt: skip
    assert broken["none", "20-30"] > 0
    assert broken["calendar", "20-30"] == 0


def test_relays_cost_what_modes_declare_over_any_number_of_hops(tmp_path):
    """And learn the key in otp, nothing in parallel; in basic the shared key, but for the first one, which has both.

    Over several paths they learn nothing, at the price of all; three hops stand for neighbours there, too.
    """
    made("relay", "--virtual", "--quick", "--seed", "1", "--out", str(tmp_path))

    found = {(row["mode"], row["measure"], int(row["hops"])): float(row["median"])
             for row in rows(tmp_path / "relay-virtual")}  # fmt: skip
    assert {measure for _, measure, _ in found} == {
        "material", "relays that learned the key", "relays that learned the shared key",
    }  # fmt: skip
    for hops in range(2, 7):
        assert found["BASIC", "material", hops] == 16 * (hops + 1)
        assert found["OTP", "material", hops] == found["PARALLEL", "material", hops] == 16 * hops
        assert found["QKP", "material", hops] < 16 * hops
        key, shared = ([found[mode, f"relays that learned {what}", hops] for mode in ("BASIC", "OTP", "PARALLEL")]
                       for what in ("the key", "the shared key"))  # fmt: skip
        assert key == [1, hops - 1, 0]
        assert shared == [hops - 2, 0, 0]
        for mode, paths in (("PATHS-2", 2), ("PATHS-3", 3), ("PATHS-2OF3", 3)):
            assert found[mode, "relays that learned the key", hops] == 0
            assert hops == 3 or found[mode, "material", hops] == paths * 16 * hops


def test_material_in_blocks_fails_under_the_usual_ttl_and_serves_under_one_that_suits(tmp_path):
    """Blocks of 30 s: between them, all is too old in half of the time."""
    made("blocks", "--virtual", "--quick", "--seed", "1", "--out", str(tmp_path))

    found = {(row["scenario"], row["key material every, s"], row["TTL, slots"]): float(row["median"])
             for row in rows(tmp_path / "blocks-virtual") if row["measure"] == "key requests failed"}  # fmt: skip
    assert len(found) == 4 * 3
    for scenario in ("BASIC", "QKP"):
        usual, starved, served = (found[scenario, *material] for material in (("1", "15"), ("30", "15"), ("30", "60")))
        assert starved > max(usual, served)


def test_series_in_virtual_time_goes_on_and_is_the_same_again(tmp_path, tiny):
    """One that was cut short after its first run ends with the same table, to the byte."""
    options = ["--virtual", "--workload", tiny, "--repeat", "3", "--seed", "5", "--over", "mode=basic,qkp"]
    made("sweep", *options, "--out", str(tmp_path / "whole"))
    made("sweep", *options, "--out", str(tmp_path / "again"))
    again = tmp_path / "again" / "sweep-tiny-virtual"
    whole = tmp_path / "whole" / "sweep-tiny-virtual"
    for path in sorted((again / "raw").iterdir())[1:]:
        path.unlink()

    made("sweep", *options, "--out", str(tmp_path / "again"))

    assert (again / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    assert (again / "events.csv").read_bytes() == (whole / "events.csv").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("fig7", "--virtual"),
         "--virtual: expected fig8 or relay or blocks or sweep: fig7 measures what takes no time there"),
        (("all", "--virtual"), "--virtual: expected fig8 or relay or blocks or sweep: "),
        (("fig8", "--dask", "tcp://127.0.0.1:1"), "--dask goes with --virtual"),
        (("fig8", "--virtual", "--database", "ha"),
         "--database and --controller go with networks of real parts: in virtual time nothing fails over"),
        (("sweep", "--virtual", "--controller", "ha", "--over", "ttl=5"), "--database and --controller go with "),
        (("sweep", "--virtual", "--over", "delay=1,2"), "--over delay: expected no delays with --virtual"),
    ],
)
def test_what_virtual_time_cannot_show_is_refused_before_anything_is_done(tmp_path, arguments, said):
    with pytest.raises(UserError, match=said):
        command.main([*arguments, "--out", str(tmp_path / "out")], pytest.fail)

    assert not (tmp_path / "out").exists()


def test_what_is_there_of_a_series_gives_results_and_nothing_is_run(tmp_path, tiny, capsys):
    """Here the last of three repeats is still to come. Without a second one there is no error bar, and that is said."""
    options = ["fig8", "--virtual", "--quick", "--repeat", "3", "--seed", "1", "--workload", tiny]
    options += ["--out", str(tmp_path)]
    made(*options)
    out = tmp_path / "fig8-tiny-virtual"
    for path in (out / "raw").glob("repeat03_*"):
        path.unlink()
    capsys.readouterr()

    made(*options, "--so-far")

    assert "PHASES STILL TO BE RUN: 4" in capsys.readouterr().out
    assert {row["repeats"] for row in rows(out)} == {"2"}
    assert not list((out / "raw").glob("repeat03_*"))
    for path in (out / "raw").glob("repeat02_*"):
        path.unlink()
    with pytest.raises(UserError, match=r"fig8: no results: .*no measure has two repeats"):
        made(*options, "--so-far")


@pytest.mark.parametrize("taken", ["fig8-tiny-virtual/results.csv", "report.html"])
def test_results_that_cannot_be_written_are_one_line(tmp_path, tiny, taken):
    """As in a folder of root's; the outcomes are kept."""
    (tmp_path / taken).mkdir(parents=True)

    with pytest.raises(UserError, match=rf"cannot write {tmp_path}/{taken}: Is a directory: choose another --out"):
        made("fig8", "--virtual", "--quick", "--seed", "1", "--workload", tiny, "--out", str(tmp_path))
    assert len(list((tmp_path / "fig8-tiny-virtual" / "raw").glob("repeat*.json"))) == 8


def test_series_that_was_never_begun_has_nothing_so_far(tmp_path):
    """And is not begun by that."""
    with pytest.raises(UserError, match=rf"--so-far: no series was begun in {tmp_path}/fig8"):
        made("fig8", "--so-far", "--out", str(tmp_path))

    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"--so-far .* --again .*: expected one of them"):
        made("fig8", "--so-far", "--again", "--out", str(tmp_path))
