"""Prometheus itself, by the configuration that a run writes, is asked all that the dashboard for Grafana asks.

The dashboard is read by Grafana's own models.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from testbed.network.loopback import free_port
from tests.support.running import Running
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "build/prometheus/usr/bin/prometheus"
DASHBOARD = json.loads((ROOT / "monitoring/grafana-dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] == "timeseries"]
PARTS = {"controller", "government", "military", "telecom", "finance", "university"}


@pytest.fixture(scope="module")
def address(exposed: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a Prometheus answers that reads the run's figures, while two applications get keys."""
    exposed.cli("qkd open tax-office billing")
    exposed.wait_for("open: KSID")
    port = free_port()
    command = [
        PROMETHEUS, f"--config.file={exposed.directory}/prometheus.yml", f"--web.listen-address=127.0.0.1:{port}",
        f"--storage.tsdb.path={tmp_path_factory.mktemp('prometheus')}",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield f"http://127.0.0.1:{port}/api/v1"
        finally:
            process.terminate()
            exposed.cli("qkd close tax-office billing")


def asked(address: str, what: str, **fields: str) -> Any:
    """What Prometheus answers; None while it does not."""
    try:
        reply = urllib3.request("GET", f"{address}/{what}", fields=fields, timeout=5, retries=False)
    except urllib3.exceptions.HTTPError:
        return None
    return reply.json()["data"] if reply.status == 200 else None


def test_every_part_of_the_run_is_read(address):
    """With the operator's certificate, checking theirs."""

    def up() -> set[str]:
        found = (asked(address, "targets") or {}).get("activeTargets", [])
        return {target["labels"]["part"] for target in found if target["health"] == "up"}

    until(lambda: up() == PARTS, 60, else_tell=lambda: asked(address, "targets"))


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_panel_has_something_to_show(address, panel):
    """Whatever Grafana puts for its variables: a time, and all nodes."""
    for target in panel["targets"]:
        query = target["expr"].replace("$__rate_interval", "1m").replace("$node", ".*")
        assert "$" not in query
        until(
            lambda query=query: (asked(address, "query", query=query) or {}).get("result"), 60,
            else_tell=lambda query=query: (query, asked(address, "query", query=query)),
        )  # fmt: skip


def lost(ours: Any, theirs: Any, at: str = "") -> list[str]:
    """Where in a document something stands that is not in the other one, or is another value there."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [place for key, value in ours.items() for place in lost(value, theirs.get(key), f"{at}/{key}")]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [place for n, pair in enumerate(zip(ours, theirs, strict=True)) for place in lost(*pair, f"{at}/{n}")]
    return [] if ours == theirs else [at]


def through_grafana(document: Any) -> Any:
    """A dashboard, read into Grafana's own models, and written by them."""
    plugins.register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(document)))


def test_grafana_s_own_models_take_all_of_the_dashboard():
    """They pass over what they do not know: a member of another name, or in another place, would be lost."""
    assert lost(DASHBOARD, through_grafana(DASHBOARD)) == []

    wrong = json.loads(json.dumps(DASHBOARD).replace('"legend":', '"legends":'))
    assert lost(wrong, through_grafana(wrong)) == [f"/panels/{n}/options/legends" for n in range(len(PANELS))]


def test_dashboard_is_complete_as_grafana_takes_it():
    """Each panel has a place of its own, and asks the source that was chosen."""
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in PANELS]

    assert len(set(places)) == len(places) == len(DASHBOARD["panels"])
    assert {panel["datasource"]["uid"] for panel in PANELS} == {"${source}"}
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {"source", "node"}
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
