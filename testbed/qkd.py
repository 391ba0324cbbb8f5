"""`./qkd WORD ...`: what one types behind `qkd` at a run's command line, from any other terminal."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.errors import UserError
from testbed.machine import output
from testbed.operation import feed, words
from testbed.operation.client import Client

_LATEST = Path(__file__).resolve().parent.parent / "runs" / "latest"
_BASH = """_qkd() {
    local IFS=$'\\n'
    COMPREPLY=($("${COMP_WORDS[0]}" complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -F _qkd qkd ./qkd
"""
_OWN = {
    "events": "qkd events [NAME ...]  events as they happen, a line of JSON each, until Ctrl-C\n",
    "stop": "qkd stop              end the run\n",
    "completion": (
        "qkd completion bash   what to source in ~/.bashrc, for the Tab key: source <(./qkd completion bash)\n"
    ),
}
_BEHIND = {"events": feed.NAMES, "stop": (), "completion": ("bash",)}
_OPTIONS = ("--json", "--run")
_OPTIONS_HELP = "options: --run DIR (the run's directory, default runs/latest), --json (answers as JSON)\n"


@dataclass(frozen=True, slots=True)
class _Given:
    """The options, which may stand anywhere."""

    run: Path
    json: bool


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0, 1 if something was not done, 2 if there is no run to ask."""
    typed: list[str] = []
    run, as_json = _LATEST, False
    left = iter(arguments)
    for word in left:
        if word == "--json":
            as_json = True
        elif word == "--run":
            given = next(left, None)
            if not given:
                print("--run: expected the directory of a run behind it", file=sys.stderr)
                return 1
            run = Path(given)
        elif word in ("-h", "--help") and typed[:1] != ["complete"]:
            typed = typed[:1] if typed[:1] == ["help"] else ["help", *typed[:1]]
            break
        else:
            typed.append(word)
    try:
        return _obey(_Given(run.resolve(), as_json), typed)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1


def _obey(given: _Given, typed: Sequence[str]) -> int:
    word, *rest = typed or ["help"]
    if word == "help":
        print(words.help_on(rest, _OWN) + ("" if rest else _OPTIONS_HELP), end="")
        return 0
    if (word == "completion" and rest != ["bash"]) or (word == "stop" and rest):
        raise UserError(f"qkd {word}: expected\n{_OWN[word]}".rstrip())
    if word == "completion":
        print(_BASH, end="")
        return 0
    if word not in (*words.WORDS, *_OWN, "complete"):
        raise words.unknown(word, _OWN)
    try:
        client = Client(given.run)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    with contextlib.closing(client):
        if word == "complete":
            typed_so_far = rest[1:] if rest[:1] == ["--"] else rest
            begun = typed_so_far[-1] if typed_so_far else ""
            options = [option for option in _OPTIONS if begun.startswith("-") and option.startswith(begun)]
            print("\n".join(options or words.completions(typed_so_far, client.do, _BEHIND)))
        elif word == "events":
            for event in client.stream("follow", names=rest or None):
                print(json.dumps(event), flush=True)
        elif word == "stop":
            client.do("stop")
        else:
            _print(given, typed, client)
    return 0


def _print(given: _Given, typed: Sequence[str], client: Client) -> None:
    """What was asked for: in words, or the last answer as JSON."""
    last: list[Any] = [None]

    def do(name: str, /, **arguments: Any) -> Any:
        last[0] = client.do(name, **arguments)
        return last[0]

    shown = words.obey(typed, do)
    print(json.dumps(last[0], indent=2) + "\n" if given.json else shown, end="")


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(output.run(lambda: main(sys.argv[1:])))
