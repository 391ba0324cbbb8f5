"""`from testbed import Testbed`: start, join and drive a running network from Python, in a script or a notebook.

All of it goes by the operator's socket in the run directory, as `qkd` does. Nothing here is a way of its own.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import io
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from documents.paths import paths_of
from testbed.errors import UserError
from testbed.operation import feed
from testbed.operation.client import Client, Events

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_ROOT = Path(__file__).resolve().parent.parent
_LATEST = _ROOT / "runs" / "latest"
_TIMEOUT_S = 60.0
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Key:
    """A key as a KME served it. Its bytes are in `value` and in no picture of this object."""

    key_id: str
    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeySession:
    """A key session that was opened: its KSID, its SAEs by name, the nodes on its path; each of several paths."""

    ksid: str
    master: str
    slave: str
    path: tuple[str, ...]
    paths: tuple[tuple[str, ...], ...] = ()


class Testbed:
    """A network of real parts. Not thread-safe, but for what `events` gives. UserError if something is not done.

    `with Testbed("poliqi", mode="qkp") as net:` starts one, which needs root, and ends it. Options are those of run.py
    (`qc_rate="50-60"` is --qc-rate 50-60, `no_dashboard=True` is --no-dashboard); `topology` is a name or a file.
    """

    __test__ = False  # of pytest, to which this is no class of tests

    def __init__(self, topology: str | Path = "poliqi", **options: Any) -> None:
        self._options = {"topology": topology, **options}
        self._client: Client | None = None
        self._ours = True

    @classmethod
    def attach(cls, run_dir: str | Path | None = None) -> Testbed:
        """The run in that directory, the latest one if there is none. It goes on when we leave."""
        found = cls()
        found._ours = False
        found._client = Client(Path(run_dir or _LATEST).resolve())
        return found

    def __enter__(self) -> Testbed:
        if self._client is None:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start it; returns when the network is up."""
        command = [sys.executable, "-P", "-m", "testbed", "--detach", *_words(self._options)]
        done = subprocess.run(
            command, cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode != 0:
            said = done.stdout.strip().splitlines() or [f"the start ended with status {done.returncode}"]
            raise UserError(said[-1].removeprefix("run.py: "))
        given = self._options.get("run_dir")
        self._client = Client(Path(given).absolute() if given is not None else _run_in(done.stdout))

    def close(self) -> None:
        """Leave it; end it if it was started here, which returns when nothing of it is left."""
        if self._client is None:
            return
        if self._ours:
            with contextlib.suppress(UserError):  # it has ended already
                self._client.do("stop")
            until((self.run_dir / "summary.json").exists, _TIMEOUT_S)
        self._client.close()
        self._client = None

    @property
    def run_dir(self) -> Path:
        """Where its journals, logs and results are."""
        return self._running().run

    def status(self) -> dict[str, Any]:
        """Controller, nodes, parameters, what is broken."""
        return dict(self._do("status"))

    def open(self, master: str, slave: str, **wanted: float) -> KeySession:
        """Have one SAE open a key session with another; `key_size_bits`, `interval_s`, `duration_s` as wanted."""
        opened = self._do("open", master=master, slave=slave, **wanted)
        paths = tuple(map(tuple, paths_of(opened)))
        return KeySession(opened["ksid"], master, slave, tuple(opened["path"]), paths)

    def end(self, session: KeySession | str) -> None:
        """End a key session, or the one of that KSID."""
        self._do("close", ksid=session if isinstance(session, str) else session.ksid)

    def get_key(self, master: str, slave: str, number: int = 1, size: int | None = None) -> list[Key]:
        """New keys of `size` bits, as the master asks its KME for them."""
        return _keys(self._do("get_key", master=master, slave=slave, number=number, size=size))

    def get_key_with_ids(self, master: str, slave: str, key_ids: Sequence[str]) -> list[Key]:
        """The same keys, as the slave asks its own KME for them."""
        return _keys(self._do("get_key_with_ids", master=master, slave=slave, key_ids=list(key_ids)))

    def set(self, **parameters: object) -> None:
        """Set parameters of the network: `mode="qkp"`, `ttl_slots=20`."""
        for name, value in parameters.items():
            self._do("set", name=name, value=str(value))

    def set_rate(self, qc: str, low: int, high: int) -> None:
        """Have a QC make `low` to `high` bytes a slot."""
        self._do("set_rate", qc=qc, low=low, high=high)

    def set_generation(self, qc: str, *, enabled: bool) -> None:
        """Have a QC generate, or not."""
        self._do("set_generation", qc=qc, enabled=enabled)

    def change_fibre(self, fibre: str, towards: str | None = None, **shape: float | None) -> dict[str, Any]:
        """Change `delay_ms`, `jitter_ms`, `loss_percent` or `bandwidth_mbit`, both ways or towards a datacenter."""
        return dict(self._do("change_fibre", fibre=fibre, towards=towards, shape=shape))

    def reset_fibre(self, fibre: str) -> dict[str, Any]:
        """Shape a fibre as the topology says."""
        return dict(self._do("reset_fibre", fibre=fibre))

    def fault(self, kind: str, *where: str) -> None:
        """Break something: `fault("cut", "telecom", "finance")`."""
        self._do("break", kind=kind, where=list(where))

    def heal(self, kind: str | None = None, *where: str) -> None:
        """Heal it, or everything."""
        self._do("heal", kind=kind, where=list(where))

    def open_tunnel(self, a: str, b: str, **wanted: Any) -> dict[str, Any]:
        """A tunnel between two datacenters' hosts, up; `kind`, `every_s`, `policy` as wanted. Its end at `a`."""
        return dict(self._do("open_tunnel", a=a, b=b, **wanted))

    def end_tunnel(self, a: str, b: str) -> None:
        """End it."""
        self._do("close_tunnel", a=a, b=b)

    def tunnels(self) -> pd.DataFrame:
        """Both ends of each tunnel: state, key, bytes."""
        return _frame(self._do("tunnels"), "node", columns=("node", "peer", "kind", "state", "key_id", "keys"))

    @contextlib.contextmanager
    def broken(self, kind: str, *where: str) -> Iterator[None]:
        """It is broken as long as the block lasts."""
        self.fault(kind, *where)
        try:
            yield
        finally:
            self.heal(kind, *where)

    @contextlib.contextmanager
    def events(self, *names: str) -> Iterator[Events]:
        """What happens from now on, of these names or all: `with net.events("key_delivered") as events:`."""
        client = Client(self.run_dir)
        found = Events(client, names)
        try:
            yield found
        finally:
            client.close()

    def wait_until(self, state: Callable[[Testbed], Any], timeout_s: float = _TIMEOUT_S) -> Any:
        """What `state` gives once that is true: `net.wait_until(lambda net: net.stored().min() > 1000)`. UserError."""
        return until(lambda: state(self), timeout_s)

    def qcs(self) -> pd.DataFrame:
        """The QCs as the controller sees them, by name."""
        return _frame(self._do("qcs"), "qc")

    def stored(self) -> pd.Series[int]:
        """Bytes of key material of each QC that both its ends hold now."""
        return self.qcs()["stored_bytes"]

    def sessions(self) -> pd.DataFrame:
        """The key sessions, by KSID."""
        return _frame(self._do("sessions"), "ksid", columns=("ksid", "master", "slave", "state", "mode", "path"))

    def refusals(self) -> pd.DataFrame:
        """The last key sessions that were refused."""
        return _frame(self._do("refusals"), columns=("time", "master", "slave", "message"))

    def saes(self) -> pd.DataFrame:
        """The SAEs, by name."""
        return _frame(self._do("saes"), "name")

    def fibres(self) -> pd.DataFrame:
        """Each direction of each fibre."""
        found = self._do("fibres")
        return _frame([{"fibre": f["name"], "lit": f["lit"], **d} for f in found for d in f["directions"]])

    def history(self, *names: str, since: float = 0.0) -> pd.DataFrame:
        """Events of the past, the oldest first; `since`: seconds of the wall clock."""
        found = sorted(self._running().stream("events", names=list(names) or None, since=since), key=_time)
        return _frame(found, columns=feed.facts_of(*names))

    def deliveries(self, since: float = 0.0) -> pd.DataFrame:
        """Keys that masters got: when, which, over how many hops, how long it took in ms."""
        return self.history("key_delivered", since=since)

    def errors(self, since: float = 0.0) -> pd.DataFrame:
        """Keys that masters did not get, and why."""
        return self.history("key_failed", since=since)

    def summary(self) -> dict[str, Any]:
        """What the run has come to so far, as in its summary.json."""
        return dict(self._do("summary"))

    def story(self, ident: str) -> Story:
        """The story of a key (its ID) or of a key session (its KSID)."""
        found = self._do("story", ident=ident)
        return Story(found["text"], Path(found["picture"]))

    def draw(self) -> Figure:
        """A map: fibres, those that are dark in red, and what of key material is stored there. A notebook shows it."""
        from matplotlib.figure import Figure

        class Map(Figure):
            def _repr_svg_(self) -> str:
                text = io.StringIO()
                self.savefig(text, format="svg")
                return text.getvalue()

        topology, lit = self._do("topology"), {f["name"]: f["lit"] for f in self._do("fibres")}
        stored, at = self.stored(), {n["name"]: (n["x"], n["y"]) for n in topology["nodes"]}
        figure = Map(figsize=(6, 4.5), layout="constrained")
        axes = figure.add_subplot()
        for fibre in topology["fibres"]:
            (x1, y1), (x2, y2) = at[fibre["a"]], at[fibre["b"]]
            axes.plot([x1, x2], [y1, y2], color="#555555" if lit[fibre["name"]] else "#a00000", zorder=1)
            axes.annotate(
                f"{sum(stored[qc] for qc in fibre['qcs'])} B", ((x1 + x2) / 2, (y1 + y2) / 2), ha="center",
                fontsize="x-small", backgroundcolor="white",
            )  # fmt: skip
        for node in topology["nodes"]:
            axes.annotate(
                node["label"], at[node["name"]], ha="center", va="center", fontsize="small",
                bbox={"boxstyle": "round", "facecolor": "white"},
            )  # fmt: skip
        axes.margins(0.2)
        axes.set_axis_off()
        return figure

    def _do(self, name: str, /, **arguments: Any) -> Any:
        return self._running().do(name, **{k: v for k, v in arguments.items() if v is not None})

    def _running(self) -> Client:
        if self._client is None:
            raise UserError("this network is not running: 'with Testbed(...) as net:' starts it")
        return self._client


def results(experiment: str | Path) -> pd.DataFrame:
    """What an experiment measured: a row a figure. By its name, as a folder of results/ has it, or by that folder."""
    folder = Path(experiment)
    if not folder.is_dir():
        folder = _ROOT / "results" / experiment
    try:
        with (folder / "results.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise UserError(f"no results of {experiment}: {error.strerror} ({folder / 'results.csv'})") from None
    found = _frame(rows)
    return found.apply(_numbers)


def _numbers(column: pd.Series[Any]) -> pd.Series[Any]:
    """A column of numbers as such."""
    try:
        return column.replace("", None).astype(float)
    except ValueError:
        return column


class Story:
    """A story: `print` shows it as text, a notebook as a picture."""

    def __init__(self, text: str, picture: Path) -> None:
        self.picture = picture
        self._text = text

    def __str__(self) -> str:
        return self._text

    def _repr_svg_(self) -> str:
        return self.picture.read_text()


def until(state: Callable[[], Any], timeout_s: float) -> Any:
    """What `state` gives once that is true; UserError if it is not in time."""
    deadline = time.monotonic() + timeout_s
    while not (found := state()):
        if time.monotonic() > deadline:
            raise UserError(f"not so within {timeout_s:g} s: it is {found!r} still")
        time.sleep(_LOOK_S)
    return found


def _words(options: dict[str, Any]) -> Iterator[str]:
    """As on a command line."""
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            yield option
        elif value is not None and value is not False:
            yield from (option, str(value))


def _run_in(printed: str) -> Path:
    """The run directory that a start has printed."""
    return Path(printed.partition("run directory ")[2].partition("\n")[0])


def _keys(document: dict[str, Any]) -> list[Key]:
    return [Key(key["key_ID"], base64.b64decode(key["key"])) for key in document["keys"]]


def _time(event: dict[str, Any]) -> float:
    return float(event["time"])


def _frame(rows: Sequence[dict[str, Any]], index: str | None = None, columns: Sequence[str] = ()) -> pd.DataFrame:
    """A table of rows; `columns`: those of a table that has none, so that a program need not ask whether it has."""
    try:
        import pandas as pd
    except ImportError:
        raise UserError("tables need the package pandas: .venv/bin/pip install pandas") from None
    found = pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(columns))
    return found.set_index(index) if index in found.columns else found
