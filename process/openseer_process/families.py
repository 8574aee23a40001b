"""Samples by the names of the metric table, as Prometheus' client library takes them."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from openseer_process.metric_table import BY_NAME


class Families:
    """What one scrape tells. `everywhere`: labels that every sample has."""

    def __init__(self, **everywhere: str) -> None:
        self._everywhere = everywhere
        self._families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}

    def add(self, name: str, value: float, **labels: str) -> None:
        """One sample. Raises KeyError for a metric that the table has not, and for a label that is missing."""
        metric, given = BY_NAME[name], {**self._everywhere, **labels}
        if name not in self._families:
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            self._families[name] = kind(name, metric.text, labels=metric.label_names)
        self._families[name].add_metric([given[label] for label in metric.label_names], value)

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._families.values())


class Collected(Collector):
    """Asks `tell` at every scrape for what it has to say."""

    def __init__(self, tell: Callable[[], Iterable[Metric]]) -> None:
        self._tell = tell

    def collect(self) -> Iterable[Metric]:
        """At the moment of the scrape."""
        return self._tell()

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance: which metrics there are depends on the moment."""
        return ()
