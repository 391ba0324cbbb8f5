"""Pages of docs/ whose commands are run as printed, in their order, against a PoliQI started as they say.

Fenced blocks of `sh`, `python` and `console` (the run's command line) are run; a `json` or `text` block shows the
answer of the block before it. Two things are replaced in what is run: `runs/latest` by the folder of the tests' own
run, because another run may start meanwhile, and the ports 9440 to 9455 by the ones at which this run is published,
because those may be taken. The blocks of `sh` share one shell, as a reader's do.
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from typing import Any

from tests.support.running import ROOT, Running
from tests.support.transcript import PROMPT, Step
from tests.support.waiting import until

FIRST_PORT = 9440
END = "--- end of block, status "


@dataclass(frozen=True)
class Block:
    """What is to be run, in which language, in which section, and the answer that the page shows."""

    language: str
    text: str
    section: str
    answer: str


def read(name: str) -> str:
    """A page's text."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def blocks(page: str, *languages: str) -> list[Block]:
    """A page's blocks in these languages, in order."""
    fence = re.compile(r"^## ([^\n]+)$|^```(\w+)\n(.*?)^```$", re.M | re.S)
    found: list[Block] = []
    section = ""
    for heading, language, text in fence.findall(page):
        if heading:
            section = heading
        elif language in ("json", "text"):
            found[-1] = Block(found[-1].language, found[-1].text, found[-1].section, text)
        else:
            found.append(Block(language, text, section, ""))
    return [block for block in found if block.language in languages]


def names(found: list[Block]) -> list[str]:
    """A name for each block, for test IDs."""
    return [f"{i}-{block.section.split(':')[0].replace(' ', '-')}" for i, block in enumerate(found)]


def here(text: str, run: Running) -> str:
    """A text of the page with this run's folder and ports in it."""
    first = int(json.loads((run.directory / "expose.json").read_text())["controller"].rpartition(":")[2])
    text = text.replace("runs/latest", str(run.directory))
    return re.sub(r"\b94[45]\d\b", lambda port: str(int(port[0]) - FIRST_PORT + first), text)


def shape(value: Any, name: str = "") -> Any:
    """What two answers of one kind share: members and types, and the words of messages."""
    if isinstance(value, dict):
        return {member: shape(inner, member) for member, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return value if name == "message" else type(value).__name__


def assert_same_kind(printed: str, shown: str) -> None:
    """The answer is of the kind that the page shows."""
    assert shape(json.loads(printed)) == shape(json.loads(shown)), printed


def run_shell(found: list[Block], run: Running) -> list[tuple[int, str]]:
    """Exit status and output of each of these blocks of `sh`, all run in one shell."""
    script = "".join(f'{block.text}status=$?; echo; echo "{END}$status"\n' for block in found)
    done = subprocess.run(
        ["bash"], input=here(script, run), capture_output=True, text=True, check=False, timeout=60, cwd=ROOT
    )
    assert not done.stderr, done.stderr
    parts = re.split(rf"^{END}(\d+)\n", done.stdout, flags=re.M)
    return [(int(status), text) for text, status in zip(parts[::2], parts[1::2], strict=False)]


def typed(run: Running, line: str) -> str:
    """What the run prints until it asks for the next line, or has ended."""
    before = len(run.text)
    run.cli(line.replace("runs/latest", str(run.directory)))
    until(
        lambda: run.text[before:].endswith(PROMPT) or run.process.poll() is not None,
        else_tell=lambda: f"{line!r} goes on for too long:\n{run.text[before:]}",
    )
    return run.text[before:].removesuffix(PROMPT)


def do(run: Running, step: Step) -> str:
    """Type it, again and again if it only looks; what was printed when that was what the page shows."""
    found = ""

    def is_shown() -> bool:
        nonlocal found
        found = typed(run, step.command)
        return step.is_shown_by(found)

    def differs() -> str:
        return f"{PROMPT}{step.command}\n--- printed:\n{found}\n--- shown by the page:\n{step.shown}"

    if step.looks:
        until(is_shown, else_tell=differs)
    else:
        assert is_shown(), differs()
    return found


def wait_for_stock(run: Running, keys: int) -> None:
    """Return when alice could get so many keys to share with bob, as she finds by the first command of client.md."""
    ask = here(blocks(read("client.md"), "sh")[0].text, run)

    def stored() -> int:
        done = subprocess.run(["sh", "-c", ask], capture_output=True, text=True, check=True)
        return int(json.loads(done.stdout)["stored_key_count"])

    until(lambda: stored() >= keys)
