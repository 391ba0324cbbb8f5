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
from testbed.operation import words
from testbed.operation.client import Client

_LATEST = Path(__file__).resolve().parent.parent / "runs" / "latest"
_BASH = """_qkd() {
    local IFS=$'\\n'
    COMPREPLY=($("${COMP_WORDS[0]}" complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -F _qkd qkd ./qkd
"""
_OWN = """qkd events [NAME ...]  events as they happen, a line of JSON each, until Ctrl-C
qkd stop               end the run
qkd completion bash    what to source in ~/.bashrc, for the Tab key: source <(./qkd completion bash)
options: --run DIR (the run's directory, default runs/latest), --json (answers as JSON)
"""


@dataclass(frozen=True, slots=True)
class _Given:
    """The options, which may stand anywhere."""

    run: Path
    json: bool


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0, 1 if something was not done, 2 if there is no run to ask."""
    typed, run, as_json = [], _LATEST, False
    left = iter(arguments)
    for word in left:
        if word == "--json":
            as_json = True
        elif word == "--run":
            run = Path(next(left, ""))
        elif word in ("-h", "--help"):
            typed = ["help"]
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
        print(words.help_on(rest) + ("" if rest else _OWN), end="")
        return 0
    if word == "completion":
        if rest != ["bash"]:
            raise UserError("qkd completion: expected bash")
        print(_BASH, end="")
        return 0
    try:
        client = Client(given.run)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    with contextlib.closing(client):
        if word == "complete":
            typed_so_far = rest[1:] if rest[:1] == ["--"] else rest
            print("\n".join(words.completions(typed_so_far, client.do)))
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
