"""What one types behind `qkd`, at the run's command line and elsewhere: words to requests, and answers to text.

`do` makes a request, as `Operator.do` and `Client.do` do. A word that nobody knows gets the nearest one that there is.
"""

from __future__ import annotations

import difflib
import inspect
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from decisions.parameters import PARAMETERS, parse_rate
from documents.checks import Malformed
from documents.paths import in_words, paths_of
from testbed.errors import UserError
from testbed.operation import fibre_commands, vpn_commands
from testbed.operation.tables import WIDTH, table
from testbed.planning.fault import KINDS, PRIMARY
from testbed.stories.model import Heading
from testbed.stories.text import index

Do = Callable[..., Any]
_WIDTH = 22
_LOOPBACK = "127.0.0.1"
_SETTABLE = ", ".join(f"{p.name} {p.syntax}" for p in PARAMETERS.values())


@dataclass(frozen=True, slots=True)
class Word:
    """A word: how it is used, each use with what it does, and the function that does it.

    `completes`: what may stand behind it, place by place: literal words, and {nodes}, {qcs}, {saes}, {fibres},
    {databases}, {parameters} for all of their kind.
    """

    uses: Mapping[str, str]
    obey: Callable[..., str]
    completes: Sequence[Sequence[str]] = ()

    @property
    def help(self) -> str:
        """Lines for people."""
        return "".join(_use(*use) for use in self.uses.items())


def obey(words: Sequence[str], do: Do) -> str:
    """What to print for `qkd` and these words, as wide as the terminal, if that is one.

    UserError, in one line or with the usage of the word behind it.
    """
    WIDTH.set(shutil.get_terminal_size().columns if sys.stdout.isatty() else None)
    word, *arguments = words or ("help",)
    if word == "help":
        return help_on(arguments)
    if word not in WORDS:
        raise unknown(word)
    function = WORDS[word].obey
    if word not in ("fibre", "link"):
        try:
            inspect.signature(function).bind(do, *arguments)
        except TypeError:
            raise UserError(f"qkd {word}: expected\n{WORDS[word].help}".rstrip()) from None
        return function(do, *arguments)
    return function(do, arguments)


def help_on(arguments: Sequence[str], more: Mapping[str, str] | None = None) -> str:
    """The uses of a word, or of all of them; UserError. `more`: other words, and how they are used."""
    known = _usages(more)
    if not arguments:
        return "".join(known.values())
    known |= {name: WORDS[name].help for name in _OLD}
    if len(arguments) > 1 or arguments[0] not in known:
        raise unknown(" ".join(arguments), more)
    return known[arguments[0]]


def unknown(word: str, more: Mapping[str, str] | None = None) -> UserError:
    """That there is no such word, and how the nearest one is used."""
    known = _usages(more)
    near = difflib.get_close_matches(word.partition(" ")[0], known, 1)
    nearest = f"\nthe nearest one:\n{known[near[0]]}" if near else ""
    return UserError(f"no word {word!r}: 'qkd' lists what there is{nearest}".rstrip())


def _usages(more: Mapping[str, str] | None) -> dict[str, str]:
    return {name: word.help for name, word in WORDS.items() if name not in _OLD} | dict(more or {})


def completions(words: Sequence[str], do: Do, more: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """What the last of `words`, the ones behind `qkd`, may become.

    `more`: other words, and what may stand behind each.
    """
    *before, begun = words or [""]
    others = dict(more or {})
    if not before or before == ["help"]:
        found = {*WORDS, *others} - _OLD | ({"help"} if not before else set())
    elif before[0] in others:
        found = set(others[before[0]])
    else:
        found = _behind(before, do)
    return sorted(name for name in found if name.startswith(begun))


def _behind(before: Sequence[str], do: Do) -> set[str]:
    """What may stand behind these words."""
    word = WORDS.get(before[0])
    if word is None or len(before) > len(word.completes):
        return set()
    if before[0] == "set" and before[1:] and before[1] != "generation":
        if before[1] in PARAMETERS:
            return set(PARAMETERS[before[1]].syntax.split("|")) - {"N"} if len(before) == 2 else set()
        if len(before) > 2:
            return set()
    found: set[str] = set()
    names: dict[str, list[str]] = {}
    for choice in word.completes[len(before) - 1]:
        if choice.startswith("{"):
            names = names or do("names")
            found |= set(names[choice.strip("{}")])
        else:
            found.add(choice)
    return found


def _use(usage: str, meaning: str) -> str:
    head = f"qkd {usage}"
    lines = textwrap.wrap(meaning, 98) or [""]
    first = f"{head:<{_WIDTH - 1}} {lines[0]}" if len(head) < _WIDTH else f"{head}   {lines[0]}"
    return "".join(f"{line}\n" for line in (first, *(" " * _WIDTH + line for line in lines[1:])))


def _status(do: Do) -> str:
    found = do("status")
    rows = [("run directory", found["run"])]
    if (controller := found["controller"]) is None:
        rows.append(("controller", f"does not answer: {found['problem']}"))
    else:
        leader = controller["leader"]
        of_two = "" if leader["term"] is None else f"; {leader['name']} is {leader['standing']}, term {leader['term']}"
        rows += [
            ("switches", f"{len(controller['switches'])} of {found['switches']} connected"),
            ("controller", f"on {controller['framework']}{of_two}"),
            ("fibres", ", ".join(found["dark"]) or "all lit"),
            ("nodes", f"{len(controller['nodes'])} of {found['nodes']} reachable"),
            ("parameters", ", ".join(f"{k} {v}" for k, v in controller["parameters"].items())),
        ]
    if found["exposed"] is not None:
        rows.append(("exposed", f"on {_LOOPBACK}; URLs and certificates: {found['exposed']}"))
    if found["broken"]:
        rows.append(("broken", ", ".join(found["broken"])))
    if found["devices"]:
        wrong = (f"{qc} at {each}" for qc, said in found["devices"].items() for each in said)
        rows.append(("devices", "; ".join(wrong) or "all answer"))
    rows.append(("processes", ", ".join(f"{name} {why}" for name, why in found["away"].items()) or "all alive"))
    return "".join(f"{what:<15} {value}\n" for what, value in rows)


def _qcs(do: Do) -> str:
    rows = [
        (q["qc"], " - ".join(q["ends"]), q["status"] if q["enabled"] else "disabled", q["generated_per_slot"],
         q["requested_per_slot"], q["stored_bytes"], q["qber_percent"])
        for q in do("qcs")
    ]  # fmt: skip
    header = ("QC", "between", "status", "generated B/slot", "requested B/slot", "stored B", "QBER %")
    return table(header, rows) if rows else "no QCs\n"


def _fibres(do: Do) -> str:
    return fibre_commands.shapes(do("fibres"))


def _links(do: Do) -> str:
    """As in earlier versions: both."""
    return f"{_fibres(do)}\n{_qcs(do)}"


def _fibre(do: Do, arguments: Sequence[str]) -> str:
    if not arguments:
        raise UserError(f"qkd fibre: expected\n{WORDS['fibre'].help}".rstrip())
    return fibre_commands.obey(do, arguments)


def _sessions(do: Do) -> str:
    rows = [
        (s["ksid"], s["master"], s["slave"], "interrupted" if s["interruption"] else s["state"], s["mode"],
         "implicitly" if s["implicit"] else "explicitly", in_words(paths_of(s)))
        for s in do("sessions")
    ]  # fmt: skip
    header = ("KSID", "master", "slave", "state", "mode", "opened", "path")
    return table(header, rows) if rows else "no key sessions\n"


def _refusals(do: Do) -> str:
    rows = [(_clock(r["time"]), r["master"], r["slave"], r["message"]) for r in do("refusals")]
    return table(("time", "master", "slave", "why"), rows) if rows else "no refusals\n"


def _saes(do: Do) -> str:
    rows = [(s["name"], s["node"], s["id"], "outside" if s["external"] else "testbed") for s in do("saes")]
    return table(("application", "node", "SAE ID", "runs in"), rows)


def _cert(do: Do, name: str) -> str:
    return described(do("describe", name=name))


def described(blocks: Sequence[Sequence[Sequence[str]]]) -> str:
    """Groups of what and value. PURE."""
    return "\n".join("".join(f"{what:<12} {value}\n" for what, value in block) for block in blocks)


def _open(do: Do, master: str, slave: str) -> str:
    opened = do("open", master=master, slave=slave)
    return f"open: KSID {opened['ksid']}, path {in_words(paths_of(opened))}\n"


def _close(do: Do, first: str, slave: str | None = None) -> str:
    do("close", ksid=first if slave is None else do("ksid", master=first, slave=slave)["ksid"])
    return "closed\n"


def _key(do: Do, master: str, slave: str) -> str:
    """A key is not for terminals: what is shown is that both got the same."""
    (key,) = do("get_key", master=master, slave=slave, number=1)["keys"]
    (same,) = do("get_key_with_ids", master=master, slave=slave, key_ids=[key["key_ID"]])["keys"]
    if same != key:
        raise UserError(f"key {key['key_ID']} differs at {slave}")
    return f"key {key['key_ID']} is the same at {master} and {slave}\n"


def _set(do: Do, what: str = "", name: str = "", value: str | None = None) -> str:
    if not what:
        parameters = table(("parameter", "value"), sorted(do("parameters").items()))
        rows = [(q["qc"], _rate_in_words(q["rate"]), "on" if q["enabled"] else "off") for q in do("qcs")]
        return f"{parameters}\n{table(('QC', 'rate B/slot', 'generation'), rows)}"
    if not name:
        raise UserError(f"qkd set: expected\n{WORDS['set'].help}".rstrip())
    if value is None:
        return f"{do('set', name=what, value=name)['said']}\n"
    if what == "rate":
        request, arguments = "set_rate", dict(zip(("low", "high"), rate_of(value), strict=True))
    elif what == "generation" and value in ("on", "off"):
        request, arguments = "set_generation", {"enabled": value == "on"}
    else:
        raise UserError(f"qkd set: expected\n{WORDS['set'].help}".rstrip())
    said, failed = [], False
    for qc in do("names")["qcs"] if name == "all" else [name]:
        try:
            said.append(do(request, qc=qc, **arguments)["said"])
        except UserError as error:
            said.append(str(error))
            failed = True
    if failed:
        raise UserError("\n".join(said))
    return "".join(f"{line}\n" for line in said)


def _rate_in_words(rate: Mapping[str, int] | None) -> str:
    return "-" if rate is None else f"{rate['low']}-{rate['high']}"


def rate_of(text: str) -> tuple[int, int]:
    """The rate that LOW-HIGH says, in bytes a slot; UserError if it says none. PURE."""
    try:
        return parse_rate(text)
    except Malformed as error:
        raise UserError(f"not set: {error}") from None


def _fault(do: Do, kind: str = "", *where: str) -> str:
    if kind == "heal":
        given = {"kind": where[0], "where": list(where[1:])} if where else {}
        return "".join(f"healed: {fault['name']}\n" for fault in do("heal", **given)) or "nothing is broken\n"
    if kind:
        return f"broken: {do('break', kind=kind, where=list(where))['name']}\n"
    rows = [(fault["name"], _clock(fault["since"])) for fault in do("faults")]
    return table(("broken", "since"), rows) if rows else f"nothing is broken\n{WORDS['fault'].help}"


def _story(do: Do, first: str = "", slave: str | None = None, kind: str = "key") -> str:
    if not first:
        return index([Heading(**heading) for heading in do("stories")])
    ident = first if slave is None else do("last_story", master=first, slave=slave, kind=kind)["ident"]
    story = do("story", ident=ident)
    return f"{story['text']}as a picture: {story['picture']}\n"


def _capture(do: Do, a: str, b: str, end: str = "") -> str:
    if end == "off":
        ended = do("end_capture", a=a, b=b)
        without = f" (without {lost} packets: the machine was too busy)" if (lost := ended["lost_packets"]) else ""
        return f"captured: {ended['file']}{without}\n"
    if end:
        raise UserError(f"qkd capture: expected\n{WORDS['capture'].help}".rstrip())
    return f"capturing into {do('capture', a=a, b=b)['file']}, which holds TLS: who talks to whom, no key\n"


def _clock(wall_s: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(wall_s))


_SHAPES = ("delay", "jitter", "loss", "bandwidth", "measure", "reset")
_KINDS = tuple(KINDS)
WORDS: Mapping[str, Word] = {
    "status": Word({"status": "nodes, switches, controller, processes"}, _status),
    "qcs": Word({"qcs": "QCs with status, rate, error rate and stored key material"}, _qcs),
    "fibres": Word({"fibres": "fibres as they are shaped now"}, _fibres),
    "links": Word({"links": "fibres and QCs"}, _links),
    "fibre": Word(
        {
            "fibre A B": "the fibre between two datacenters: shape of both directions, whether it is lit",
            "fibre A B delay 20ms jitter 2ms loss 1% bandwidth 100mbit": (
                "change some of these, both ways ('none': no limit)"
            ),
            "fibre A -> B ...": (
                "the same for one direction; of several fibres take one by name: qkd fibre NAME [-> B] ..."
            ),
            "fibre A B measure|reset": (
                "delay, jitter, loss and bandwidth as they really are; back to the topology's shape"
            ),
        },
        _fibre, (("{nodes}", "{fibres}"), ("{nodes}", "->", *_SHAPES), (*_SHAPES, "{nodes}"), _SHAPES),
    ),
    "link": Word({"link A B ...": "as qkd fibre"}, _fibre),
    "sessions": Word({"sessions": "key sessions with their path"}, _sessions),
    "refusals": Word({"refusals": "the last key sessions that were refused, and why"}, _refusals),
    "saes": Word({"saes": "applications, their nodes and their IDs, and which run outside the testbed"}, _saes),
    "cert": Word(
        {"cert NAME": "where certificate and key of an application, a node or the operator lie, and the URLs to call"},
        _cert, (("{saes}", "{nodes}", "operator"),),
    ),
    "open": Word(
        {"open A B": "application A opens a key session with B (names or IDs)"}, _open, (("{saes}",), ("{saes}",))
    ),
    "close": Word({"close KSID|A B": "end a key session"}, _close, (("{saes}",), ("{saes}",))),
    "key": Word(
        {"key A B": "application A asks for a key to share with B, and B fetches it: whether they are the same"},
        _key, (("{saes}",), ("{saes}",)),
    ),
    "story": Word(
        {
            "story": "the last keys and key sessions of which a story can be told",
            "story ID": (
                "the story of a key, a key session (KSID) or a trace: who said what to whom, what was used where"
            ),
            "story A B": "the story of the last key that application A asked for to share with B, or of its failure",
            "story A B session": "how their key session was opened, or why it was not",
        },
        _story, (("{saes}",), ("{saes}",), ("key", "session")),
    ),
    "capture": Word(
        {"capture A B": (
            "capture the fibre between two datacenters into the run directory; `qkd capture A B off` ends it"
        )},
        _capture, (("{nodes}",), ("{nodes}",), ("off",)),
    ),
    "vpn": Word(
        vpn_commands.USES, vpn_commands.obey,
        (("{nodes}",), ("{nodes}",), *[(*vpn_commands.OPTIONS, "--every", "story", "off")] * 3),
    ),
    "set": Word(
        {
            "set": "what can be set, and how it is set now",
            "set NAME VALUE": _SETTABLE,
            "set rate QC LOW-HIGH": "bytes a slot that a QC makes (QC: a name from 'qkd qcs', or all)",
            "set generation QC on|off": "whether a QC generates at all",
        },
        _set, (("{parameters}", "rate", "generation"), ("{qcs}", "all"), ("on", "off")),
    ),
    "fault": Word(
        {
            "fault": "what is broken now, and since when",
            "fault cut A B": "cut the fibre between two datacenters, for traffic and for keys",
            "fault qc A B": "have no key come of the QCs between them; traffic goes on",
            "fault device A B": "cut the power of their devices, which say nothing until healed, and then start anew",
            "fault eve A B [FRACTION]": "have somebody intercept that part of the photons between them, else all",
            "fault node A": "kill a node; as well: 'qkd fault database', 'qkd fault controller'",
            "fault controller primary|standby": "of two controllers, kill the one that leads, or the other one",
            "fault pause A": "have a node sleep; its connections stay, and it answers nothing",
            "fault standby": "kill the database, and have a standby in its place, which takes no writes until healed",
            "fault database HOST": "kill what runs on a host of a database that fails over; else what takes writes",
            "fault partition HOST": "cut a host of the database off from all others; all on it lives on",
            "fault machine M": "kill what runs on another machine of this network; it is not healed",
            "fault heal": "heal everything; 'qkd fault heal cut A B', for one, heals that alone",
        },
        _fault,
        ((*_KINDS, "heal"), ("{nodes}", "{databases}", *_KINDS, PRIMARY), ("{nodes}", "{databases}"), ("{nodes}",)),
    ),
}  # fmt: skip
# Words of earlier versions, which are obeyed and no longer told of.
_OLD = frozenset(("links", "link"))
