"""What Prometheus reads of a chief, made when it asks (I/O: none; reads the chief's memory)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from company import views
from company.chief.api.metrics import BOUNDS_S, Metrics
from company.chief.facade import Chief
from p2p.net.endings import ENDINGS


def exposition(chief: Chief, counted: Metrics) -> bytes:
    """The exposition format, of a registry of its own."""
    registry = CollectorRegistry()
    registry.register(_Collector(chief, counted))
    return bytes(generate_latest(registry))


class _Collector(Collector):
    """Reads the chief when Prometheus asks."""

    def __init__(self, chief: Chief, counted: Metrics) -> None:
        self._chief = chief
        self._counted = counted

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
        yield from self._answered()

    def _answered(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("company_http_requests", "Requests answered.", labels=["route", "method", "code"])
        for labels, count in sorted(self._counted.requests.items()):
            requests.add_metric(labels, count)
        yield requests
        seconds = HistogramMetricFamily("company_http_request_seconds", "Time to the answer's first byte.", labels=["method"])
        for method, times in sorted(self._counted.times.items()):
            within = zip((*map(floatToGoString, BOUNDS_S), "+Inf"), accumulate(times.counts), strict=True)
            seconds.add_metric([method], list(within), times.total_s)
        yield seconds
        refused = CounterMetricFamily("company_auth_failures", "Requests refused at the door.", labels=["kind"])
        for kind, count in sorted(self._counted.refused.items()):
            refused.add_metric([kind], count)
        yield refused

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
