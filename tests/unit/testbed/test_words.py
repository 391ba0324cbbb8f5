"""What one types behind `qkd`: requests that are made, what is printed of answers, help, and the Tab key."""

from __future__ import annotations

import json
from typing import Any

import pytest

from testbed import qkd
from testbed.errors import UserError
from testbed.operation import words
from testbed.operation.interface import checked
from testbed.operation.words import WORDS, completions, obey

NAMES = {
    "nodes": ["alice", "bob"], "fibres": ["alice-bob"], "qcs": ["alice-bob/1"], "saes": ["alice-mail", "bob-mail"],
    "parameters": ["mode", "ttl_slots"], "databases": ["db", "db2", "db3"],
}  # fmt: skip


class Network:
    """Answers requests as it was told to, and notes them."""

    def __init__(self, **answers: Any) -> None:
        self._answers = {"names": NAMES, **answers}
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, name: str, /, **arguments: Any) -> Any:
        checked(name, {k: v for k, v in arguments.items() if v is not None})
        self.asked.append((name, arguments))
        return self._answers[name]


@pytest.mark.parametrize(
    ("typed", "answers", "asked", "printed"),
    [
        ("open a b", {"open": {"ksid": "k", "path": ["x", "y"]}}, {"master": "a", "slave": "b"},
         "open: KSID k, path x - y\n"),
        ("close k", {"close": None}, {"ksid": "k"}, "closed\n"),
        ("set mode qkp", {"set": {"said": "mode is qkp now"}}, {"name": "mode", "value": "qkp"}, "mode is qkp now\n"),
        ("set rate all 5-7", {"set_rate": {"said": "so"}}, {"qc": "alice-bob/1", "low": 5, "high": 7}, "so\n"),
        ("set generation q off", {"set_generation": {"said": "so"}}, {"qc": "q", "enabled": False}, "so\n"),
        ("fault node a", {"break": {"name": "node a"}}, {"kind": "node", "where": ["a"]}, "broken: node a\n"),
        ("fault heal", {"heal": []}, {}, "nothing is broken\n"),
        ("fault heal cut a b", {"heal": [{"name": "cut a b"}]}, {"kind": "cut", "where": ["a", "b"]},
         "healed: cut a b\n"),
        ("capture a b off", {"end_capture": {"file": "/f", "lost_packets": 0}}, {"a": "a", "b": "b"}, "captured: /f\n"),
        ("capture a b off", {"end_capture": {"file": "/f", "lost_packets": 3}}, {"a": "a", "b": "b"},
         "captured: /f (without 3 packets: the machine was too busy)\n"),
        ("story i", {"story": {"text": "so\n", "picture": "/p"}}, {"ident": "i"}, "so\nas a picture: /p\n"),
    ],
)  # fmt: skip
def test_words_become_a_request_and_its_answer_text(typed, answers, asked, printed):
    network = Network(**answers)

    assert obey(typed.split(), network) == printed
    assert network.asked[-1][1] == asked


def test_set_alone_shows_parameters_and_of_each_qc_its_rate_and_whether_it_generates():
    qc = {"qc": "a-b/1", "rate": {"low": 33, "high": 47}, "enabled": False}
    printed = obey(["set"], Network(parameters={"mode": "qkp"}, qcs=[qc]))

    assert [line.split() for line in printed.splitlines()] == [
        ["parameter", "value"], ["mode", "qkp"], [], ["QC", "rate", "B/slot", "generation"], ["a-b/1", "33-47", "off"],
    ]  # fmt: skip


def test_stories_are_listed_with_the_names_of_both_applications():
    heading = {"at_s": 0.0, "ident": "i", "what": "key", "outcome": "direct", "kind": "key", "pair": ["mail", "bank"]}

    assert obey(["story"], Network(stories=[heading])).rstrip().endswith("direct  mail → bank")


def test_session_is_closed_by_its_two_saes_too():
    network = Network(ksid={"ksid": "k"}, close=None)

    assert obey(["close", "a", "b"], network) == "closed\n"
    assert network.asked == [("ksid", {"master": "a", "slave": "b"}), ("close", {"ksid": "k"})]


def test_key_is_asked_for_at_both_ends_and_not_shown():
    """But for its ID. One that differs is told of loudly."""
    key = {"key_ID": "i", "key": "c2VjcmV0"}
    same = Network(get_key={"keys": [key]}, get_key_with_ids={"keys": [key]})
    other = Network(get_key={"keys": [key]}, get_key_with_ids={"keys": [{**key, "key": "b3RoZXI="}]})

    assert obey(["key", "a", "b"], same) == "key i is the same at a and b\n"
    with pytest.raises(UserError, match="key i differs at b"):
        obey(["key", "a", "b"], other)


def test_rate_that_some_qc_does_not_take_is_an_error_that_tells_of_all_of_them():
    """So that the exit status is not that of something done."""
    class OneRefuses(Network):
        def __call__(self, name: str, /, **arguments: Any) -> Any:
            if arguments.get("qc") == "b/1":
                raise UserError("b/1: no")
            return super().__call__(name, **arguments)

    network = OneRefuses(names={**NAMES, "qcs": ["a/1", "b/1", "c/1"]}, set_rate={"said": "so"})
    with pytest.raises(UserError, match=r"^so\nb/1: no\nso$"):
        obey(["set", "rate", "all", "5-7"], network)
    with pytest.raises(UserError, match=r"^b/1: no$"):
        obey(["set", "rate", "b/1", "5-7"], network)


def test_rate_that_cannot_be_is_refused_before_anything_is_asked():
    network = Network()

    with pytest.raises(UserError, match="not set: "):
        obey(["set", "rate", "all", "fast"], network)
    assert network.asked == []


def test_mistyped_word_gets_the_nearest_one_and_its_usage():
    """And not the whole help."""
    with pytest.raises(UserError) as refused:
        obey(["sesions"], Network())

    assert str(refused.value) == (
        "no word 'sesions': 'qkd' lists what there is\nthe nearest one:\n" + WORDS["sessions"].help.rstrip()
    )


def test_word_with_too_few_or_too_many_behind_it_gets_its_own_usage():
    for typed in (["open", "a"], ["status", "please"], ["capture", "a", "b", "on"], ["set", "generation", "q", "x"]):
        with pytest.raises(UserError) as refused:
            obey(typed, Network())
        assert str(refused.value).startswith(f"qkd {typed[0]}: expected\nqkd {typed[0]}")


def test_help_is_on_one_word_or_on_all():
    assert obey(["help", "close"], Network()) == WORDS["close"].help
    assert obey([], Network()) == obey(["help"], Network())
    assert all(f"qkd {word}" in obey([], Network()) for word in WORDS if word not in ("link", "links"))


def test_lines_of_help_fit_into_a_terminal():
    assert max(map(len, words.help_on([]).splitlines())) <= 132


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        (["st"], ["status", "story"]),
        (["open", ""], ["alice-mail", "bob-mail"]),
        (["open", "alice-mail", "b"], ["bob-mail"]),
        (["set", "ra"], ["rate"]),
        (["set", "rate", "al"], ["alice-bob/1", "all"]),
        (["set", "rate", "all", ""], []),
        (["set", "generation", "all", "o"], ["off", "on"]),
        (["set", "mode", "q"], ["qkp"]),
        (["set", "keys_ahead", ""], ["auto"]),
        (["set", "ttl_slots", ""], []),
        (["set", "mode", "qkp", ""], []),
        (["fault", "heal", "c"], ["controller", "cut"]),
        (["fault", "partition", "d"], ["database", "db", "db2", "db3", "device"]),
        (["fibre", "alice", "bob", "d"], ["delay"]),
        (["help", "se"], ["sessions", "set"]),
        (["nonsense", ""], []),
        (["status", ""], []),
    ],
)
def test_tab_key_completes_words_and_names(typed, found):
    assert completions(typed, Network()) == found


def test_qkd_without_a_run_says_so_and_ends_with_status_2(tmp_path, capsys):
    """Of a folder that is not there, and of one in which a run has died."""
    assert qkd.main(["--run", str(tmp_path / "none"), "status"]) == 2
    assert qkd.main(["status", "--run", str(tmp_path)]) == 2

    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"no run in {tmp_path / 'none'}: expected the directory of one, as 'run.py' prints it",
        f"the run in {tmp_path} has ended, or is not up yet",
    ]


@pytest.mark.parametrize("typed", [["stop"], ["events"], ["completion"], ["open"]])
def test_every_word_of_qkd_is_explained_by_help_before_it_and_behind_it(typed, tmp_path, capsys):
    for line in (["help", *typed], [*typed, "--help"], [*typed, "x", "-h"]):
        assert qkd.main(["--run", str(tmp_path), *line]) == 0
        said = capsys.readouterr().out.splitlines()
        assert said
        assert all(one.startswith(f"qkd {typed[0]}") for one in said)


@pytest.mark.parametrize(("typed", "nearest"), [("stpo", "stop"), ("evnts", "events"), ("opne", "open")])
def test_mistyped_word_of_qkd_gets_the_nearest_one_without_a_run(typed, nearest, tmp_path, capsys):
    assert qkd.main(["--run", str(tmp_path), typed]) == 1

    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"no word {typed!r}: 'qkd' lists what there is"
    assert said[2].startswith(f"qkd {nearest}")


def test_stop_takes_nothing_behind_it_and_run_takes_a_directory(tmp_path, capsys):
    """A run is not ended by a line that says something else."""
    assert qkd.main(["--run", str(tmp_path), "stop", "capture"]) == 1
    assert qkd.main(["status", "--run"]) == 1

    assert capsys.readouterr().err.splitlines() == [
        "qkd stop: expected", "qkd stop              end the run", "--run: expected the directory of a run behind it",
    ]  # fmt: skip


def test_qkd_help_and_completion_need_no_run(tmp_path, capsys):
    assert qkd.main(["--run", str(tmp_path), "help", "open"]) == 0
    assert qkd.main(["--run", str(tmp_path), "completion", "bash"]) == 0

    assert "complete -F _qkd qkd ./qkd" in capsys.readouterr().out
    assert json.dumps(NAMES)  # the names stay plain JSON, as they cross the socket
