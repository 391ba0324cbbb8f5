"""Policies in files of the user's: what is found, what is refused before anything starts, what a fault costs."""

from __future__ import annotations

from pathlib import Path as File

import networkx as nx
import pytest

from decisions import user_policies
from decisions.admission import ADMISSION_POLICIES, Demand, QcView, Refused
from decisions.modes import MODES
from decisions.parameters import PATH_POLICY, checked
from decisions.paths import PATH_POLICIES
from documents import plugged
from documents.checks import Malformed
from documents.plugged import PlugError, PluggedFailed

PATHS = """
from decisions.paths import Path

def longest(graph, source, target, view):
    import networkx as nx
    for nodes in sorted(nx.all_simple_paths(nx.Graph(graph), source, target), key=len, reverse=True):
        yield Path(tuple(nodes), tuple(min(graph[a][b]) for a, b in zip(nodes, nodes[1:])))
"""
RING = nx.MultiGraph([("a", "b", "ab"), ("b", "c", "bc"), ("a", "c", "ac")])
VIEWS = [QcView("ab", 400, 0, 100, 10)]
DEMAND = Demand(16, 5.0, [16.0])


pytestmark = pytest.mark.usefixtures("policies_as_they_were")


def use(folder: File, parameter: str, text: str, name: str) -> str:
    """Plug in what is called `name` in a file of that text."""
    file = folder / "mine.py"
    file.write_text(text)
    return user_policies.use({parameter: f"{file}:{name}"})[parameter]


def test_path_policy_takes_its_place_beside_ours(tmp_path):
    """Under its own name, which the parameter may have from then on."""
    with pytest.raises(Malformed):
        checked({"path_policy": "longest"})

    assert use(tmp_path, "path_policy", PATHS, "longest") == "longest"

    assert checked({"path_policy": "longest"}) == {"path_policy": "longest"}
    assert "longest" in PATH_POLICY.values
    assert [p.nodes for p in PATH_POLICIES["longest"](RING, "a", "b", None)] == [("a", "c", "b"), ("a", "b")]


def test_admission_policy_and_mode_do_so_too(tmp_path):
    """A function, and a mode that relays keys themselves, several at once."""
    text = """
from decisions.admission import Refused
from decisions.modes import Mode

def never(path, demand):
    return Refused(path[0].qc, demand.key_bytes, 0)

train = Mode("train", cipher=None, ahead=True)
"""
    assert ADMISSION_POLICIES[use(tmp_path, "admission", text, "never")](VIEWS, DEMAND) == Refused("ab", 16, 0)
    assert MODES[use(tmp_path, "mode", text, "train")].per_key(3, 16, 4) == [16.0, 16.0, 16.0]


@pytest.mark.parametrize(
    ("parameter", "text", "name", "said"),
    [
        ("path_policy", PATHS, "longer", "did you mean 'longest'"),
        ("path_policy", "def short(graph):\n    return []\n", "short", "a function of .graph, source, target, view."),
        ("path_policy", "few = 3\n", "few", "expected a function"),
        ("path_policy", "def f(:\n", "f", "line 1"),
        ("path_policy", "import nothing_like_this\n", "f", "line 1: raises ModuleNotFoundError"),
        ("admission", "def f(path):\n    return None\n", "f", "expected a function of .path, demand."),
        ("mode", "mine = 3\n", "mine", "expected a decisions.modes.Mode"),
        ("mode", "from decisions.modes import Mode\nmine = Mode('other', None, False)\n", "mine", "called 'mine'"),
        ("mode", "from decisions.modes import Mode\nmine = Mode('mine', 'rot13', False)\n", "mine", "cipher.*'rot13'"),
        ("mode", "from decisions.modes import Mode\nm = Mode('m', 'otp', False, at_once=True)\n", "m", "no cipher"),
        ("mode", "from decisions.modes import Mode\nm = Mode('m', None, False, True, 3, 1)\n", "m", "at least 2 are"),
        ("mode", "from decisions.modes import Mode\nm = Mode('m', None, False, True, 2, 3)\n", "m", "got paths=2"),
        ("mode", "from decisions.modes import Mode\nm = Mode('m', None, False, True, '2')\n", "m", "whole numbers"),
        ("mode", "from decisions.modes import Mode\nm = Mode('m', None, False, False, 2, 2)\n", "m", "relay at once"),
        ("mode", "from decisions.modes import Mode\nclass M(Mode): ...\nm = M('m', None, True)\n", "m", "got M"),
        ("admission", "def eq1(path, demand):\n    return None\n", "eq1", "a name of its own"),
    ],
)
def test_what_cannot_be_a_policy_is_refused_in_one_line(tmp_path, parameter, text, name, said):
    """Before anything starts."""
    with pytest.raises(PlugError, match=said) as refused:
        use(tmp_path, parameter, text, name)
    assert "\n" not in str(refused.value)
    assert "mine.py" in str(refused.value)


@pytest.mark.parametrize("reference", ["nothing", "nothing.py", "nothing.py:", "/nowhere/nothing.py:f", "x.txt:f"])
def test_reference_that_names_no_file_is_refused(reference):
    """Or no name in one."""
    with pytest.raises(PlugError):
        user_policies.use({"admission": reference})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return [1 / 0]", "line 3: raises ZeroDivisionError"),
        ("while True:\n        pass", "takes longer than 0.2 s"),
        ("return [3]", "gives 3: expected a Path"),
        ("return [Path(('a', 'b'), ('none',))]", "expected a Path from a to b along QCs"),
        ("return [Path(('a', 'c'), ('ac',))]", "expected a Path from a to b"),
        ("return None", "raises TypeError"),
    ],
)
def test_fault_of_a_policy_is_told_with_its_file_and_line(tmp_path, monkeypatch, body, said):
    """Raising, taking for ever, or giving what is no path."""
    monkeypatch.setattr(plugged.call, "__defaults__", (0.2,))
    head = "from decisions.paths import Path\ndef f(graph, source, target, view):\n"
    name = use(tmp_path, "path_policy", f"{head}    {body}\n", "f")

    with pytest.raises(PluggedFailed, match=said) as failed:
        PATH_POLICIES[name](RING, "a", "b", None)
    assert "mine.py" in str(failed.value)


def test_policy_that_is_quick_enough_leaves_nothing_behind(tmp_path):
    """No exception strikes who calls next."""
    name = use(tmp_path, "admission", "def f(path, demand):\n    return None\n", "f")

    assert [ADMISSION_POLICIES[name](VIEWS, DEMAND) for _ in range(200)] == [None] * 200
