"""Numbers for Prometheus; labels are bounded by the code, never by what users or strangers send (I/O: none; reads the chief's memory)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from company import views
from company.chief.facade import Chief
from p2p.net.endings import ENDINGS

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class _ChiefCollector(Collector):
    """Reads the chief when Prometheus asks."""

    def __init__(self, chief: Chief) -> None:
        self._chief = chief

    def describe(self) -> Iterable[Metric]:
        return []  # or the registry would collect once at registration

    def collect(self) -> Iterator[Metric]:
        company = self._chief.company()
        info = GaugeMetricFamily("company_build_info", "Version of this chief.", labels=["version", "python"])
        info.add_metric([company.version, company.python], 1)
        yield info
        yield _by_state("company_jobs", "Jobs by state.", company.jobs)
        yield _by_state("company_workers", "Workers by state.", company.workers)
        yield GaugeMetricFamily("company_slots", "Slots of all workers.", value=company.slots)
        yield GaugeMetricFamily("company_slots_busy", "Slots that run something.", value=company.slots_busy)
        yield GaugeMetricFamily("company_storage_free_bytes", "Free bytes where the home is.", value=company.disk_free_bytes)
        yield GaugeMetricFamily("company_start_timestamp_seconds", "When this chief started.", value=company.started)
        jobs, _ = self._chief.list_jobs(state=None, limit=1000, offset=0)
        yield _by_state("company_fragments", "Fragments of unfinished jobs by state.", _fragments(jobs))
        yield from self._ended()

    def _ended(self) -> Iterator[Metric]:
        ended = CounterMetricFamily("company_connections_ended", "Connections that ended for a fault, by port.", labels=["port", "reason"])
        for (port, reason), count in sorted(ENDINGS.counts.items()):
            ended.add_metric([port, reason], count)
        yield ended
        dropped = CounterMetricFamily("company_datagrams_dropped", "Datagrams of the DHT that were dropped.", labels=["reason"])
        for reason, count in sorted(self._chief.network.status().drops.items()):
            dropped.add_metric([reason], count)
        yield dropped


def _fragments(jobs: Iterable[views.JobView]) -> dict[str, int]:
    total = {"done": 0, "failed": 0, "leased": 0, "waiting": 0}
    for job in jobs:
        if job.state not in ("done", "failed", "cancelled"):
            for state in total:
                total[state] += int(getattr(job.fragments, state))
    return total


def _by_state(name: str, text: str, counts: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=["state"])
    for state, count in counts.items():
        family.add_metric([state], count)
    return family


class Metrics:
    """The registry of one chief; nothing is registered globally."""

    def __init__(self, chief: Chief) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_ChiefCollector(chief))
        self._requests = Counter("company_http_requests_total", "Requests answered.", ["route", "method", "code"], registry=self._registry)
        self._seconds = Histogram("company_http_request_seconds", "Time to the answer's first byte.", ["method"], registry=self._registry)
        self._refused = Counter("company_auth_failures_total", "Requests refused at the door.", ["kind"], registry=self._registry)

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answer; ``route`` is the pattern, not the path."""
        method = method if method in _METHODS else "other"
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(method).observe(seconds)

    def count_refusal(self, kind: str) -> None:
        """Count one refusal at the door: host, origin, token or csrf."""
        self._refused.labels(kind).inc()

    def text(self) -> bytes:
        """The exposition format."""
        return bytes(generate_latest(self._registry))
