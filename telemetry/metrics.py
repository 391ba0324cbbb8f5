"""Every figure that Prometheus can read of a node or of the controller, by name.

Labels are few and of few values: no key, SAE or session has a series of its own. Times are in seconds, stocks in bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_LATEST
_DELIVERY_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_QC = (
    # name, what it is, whether it only grows
    ("qkd_qc_stored_bytes", "Key material of the QC that this node holds", False),
    ("qkd_qc_generated_bytes", "Key material of the QC that this node has received", True),
    ("qkd_qc_used_bytes", "Key material of the QC that left this node's store in keys and relay pads", True),
    ("qkd_qc_expired_bytes", "Key material of the QC that was erased unused", True),
    ("qkd_qc_differing_bytes", "Key material of the QC that was erased because its other end held other bytes", True),
)


class NodeMetrics:
    """Of the node `name`, which is a label of each figure. `qcs()` gives (QC, bytes stored, generated, used, expired,
    differing), `pooled()` keys that wait by their QC, `lost()` by QC bytes that came to nothing, `qber()` by QC the
    error rate in percent."""

    def __init__(
        self,
        name: str,
        qcs: Callable[[], Iterable[tuple[str, int, int, int, int, int]]],
        pooled: Callable[[], Mapping[str, int]],
        lost: Callable[[], Mapping[str, int]],
        qber: Callable[[], Mapping[str, float]],
    ) -> None:
        self._registry = CollectorRegistry()
        self._page = CollectorRegistry()
        self._page.register(_OfNode(name, self._registry))
        self._delivered = Counter(
            "qkd_keys_delivered", "Keys handed out to SAEs", ["method", "mode", "hops"], registry=self._registry
        )
        self._failed = Counter(
            "qkd_key_requests_failed", "Requests for keys that failed", ["method", "cause"], registry=self._registry
        )
        self._delivery = Histogram(
            "qkd_key_delivery_seconds", "From the arrival of a request for keys until its answer was ready",
            ["method", "mode", "hops"], buckets=_DELIVERY_S, registry=self._registry,
        )  # fmt: skip
        self._relay_failures = Counter(
            "qkd_relays_failed", "Keys that this node could not relay or accept", ["cause"], registry=self._registry
        )
        self._registry.register(_Stocks(qcs, pooled, lost, qber))

    def delivered(self, method: str, n_keys: int, duration_s: float, *, mode: str = "", hops: int = 0) -> None:
        """Keys were handed out; `mode` and `hops` are known of new keys only."""
        labels = (method, mode, str(hops) if hops else "")
        self._delivered.labels(*labels).inc(n_keys)
        self._delivery.labels(*labels).observe(duration_s)

    def failed(self, method: str, cause: str) -> None:
        """A request for keys failed."""
        self._failed.labels(method, cause).inc()

    def relay_failed(self, cause: str) -> None:
        """A relayed key got no further."""
        self._relay_failures.labels(cause).inc()

    def page(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self._page)


class ControllerMetrics:
    """Of the controller. `sessions()` gives the number of key sessions by state, `nodes()` that of nodes known."""

    def __init__(self, sessions: Callable[[], Mapping[str, int]], nodes: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._admissions = Counter(
            "qkd_admissions", "Key sessions asked for, by what became of them", ["result", "cause"],
            registry=self._registry,
        )  # fmt: skip
        self._opening = Histogram(
            "qkd_session_opening_seconds", "From both sides' registration until all agents were informed",
            buckets=_DELIVERY_S, registry=self._registry,
        )  # fmt: skip
        self._registry.register(_Network(sessions, nodes))

    def admitted(self, duration_s: float) -> None:
        """A session is open."""
        self._admissions.labels("admitted", "").inc()
        self._opening.observe(duration_s)

    def refused(self, cause: str) -> None:
        """A session is not."""
        self._admissions.labels("refused", cause).inc()

    def page(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self._registry)


class StandbyMetrics:
    """Of a controller that stands by: the latest term that it has heard of."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._term = Gauge("qkd_controller_term", "The latest term that it has heard of", registry=self._registry)

    def page(self, term: int) -> bytes:
        """All figures in Prometheus' text format."""
        self._term.set(term)
        return generate_latest(self._registry)


class _OfNode(Collector):
    """Figures with one label more, `node`: whoever reads several nodes can tell them apart."""

    def __init__(self, node: str, figures: CollectorRegistry) -> None:
        self._node = node
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        for family in self._figures.collect():
            family.samples = [s._replace(labels={"node": self._node, **s.labels}) for s in family.samples]
            yield family


class _Stocks(Collector):
    def __init__(
        self,
        qcs: Callable[[], Iterable[tuple[str, int, int, int, int, int]]],
        pooled: Callable[[], Mapping[str, int]],
        lost: Callable[[], Mapping[str, int]],
        qber: Callable[[], Mapping[str, float]],
    ) -> None:
        self._qcs = qcs
        self._pooled = pooled
        self._lost = lost
        self._qber = qber

    def collect(self) -> Iterator[Metric]:
        rows = list(self._qcs())
        for i, (name, text, grows) in enumerate(_QC, start=1):
            yield _family(name, text, "qc", [(str(row[0]), float(row[i])) for row in rows], grows=grows)
        pooled = [(qc, float(n)) for qc, n in sorted(self._pooled().items())]
        yield _family("qkd_pool_keys", "Keys made ahead that wait, by the first QC of their path", "qc", pooled)
        text = "Key material of the QC that was allocated for keys which SAEs of this node were to get and did not"
        lost = [(qc, float(n)) for qc, n in sorted(self._lost().items())]
        yield _family("qkd_qc_lost_bytes", text, "qc", lost, grows=True)
        text = "Quantum bit error rate of the QC, as its device says"
        yield _family("qkd_qc_qber_percent", text, "qc", sorted(self._qber().items()))


class _Network(Collector):
    def __init__(self, sessions: Callable[[], Mapping[str, int]], nodes: Callable[[], int]) -> None:
        self._sessions = sessions
        self._nodes = nodes

    def collect(self) -> Iterator[Metric]:
        states = [(state, float(n)) for state, n in sorted(self._sessions().items())]
        yield _family("qkd_key_sessions", "Key sessions now", "state", states)
        yield GaugeMetricFamily("qkd_nodes", "Nodes known now", value=self._nodes())


def _family(
    name: str, text: str, label: str, values: Sequence[tuple[str, float]], *, grows: bool = False
) -> CounterMetricFamily | GaugeMetricFamily:
    family = (CounterMetricFamily if grows else GaugeMetricFamily)(name, text, labels=[label])
    for of, value in values:
        family.add_metric([of], value)
    return family
