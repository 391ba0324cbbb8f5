"""What the front for TeraFlowSDN makes of requests and answers."""

from __future__ import annotations

import pytest

from testbed.teraflow import as_modelled, main, unprefixed


@pytest.mark.parametrize(
    ("document", "found"),
    [({"etsi-qkd-sdn-node:qkd_links": {"a:b": 1}}, {"qkd_links": {"a:b": 1}}), ({"x": 1}, {"x": 1}), (None, None)],
)
def test_outermost_name_loses_its_module(document, found):
    """And no other, for those are identities and members of other modules."""
    assert unprefixed(document) == found


def test_only_the_next_hop_is_left_of_all_that_follow():
    """Other members and other bodies stay as they are."""
    link = {"qkdl_id": "x", "virt_prev_hop": None, "virt_next_hop": ["b", "c"]}
    physical = {"qkdl_id": "y"}

    posted = as_modelled({"qkd_links": {"qkd_link": [link, physical]}})

    assert posted == {"qkd_links": {"qkd_link": [{**link, "virt_next_hop": ["b"]}, physical]}}
    others = [{"x": 1}, [1], None, 3, {"qkd_links": 3}, {"qkd_links": {"qkd_link": [3, {"virt_next_hop": 3}]}}]
    assert [as_modelled(body) for body in others] == others


@pytest.mark.parametrize("arguments", [[], ["runs/latest", "a"], ["runs/latest", "a", "port"]])
def test_wrong_arguments_end_in_how_it_is_used_and_a_line(arguments, capsys):
    """Which names what was expected."""
    with pytest.raises(SystemExit) as end:
        main(arguments)

    assert end.value.code == 2
    usage, line = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: python -m testbed.teraflow")
    assert "PORT" in line


def test_run_that_is_not_there_ends_in_a_line(capsys):
    """Which names it."""
    assert main(["/nowhere", "a", "1"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"agents": {}, "operator": {}}', '{"agents": 3}', "\ud83d"])
def test_file_that_no_run_has_written_ends_in_a_line(text, tmp_path, capsys):
    """It names the file."""
    (tmp_path / "expose.json").write_bytes(text.encode(errors="surrogatepass"))

    assert main([str(tmp_path), "a", "1"]) == 2
    assert capsys.readouterr().err == f"teraflow: {tmp_path}/expose.json is none that a run has written\n"
