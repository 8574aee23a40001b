"""Collects samples of the metric table's metrics, as metric families of Prometheus' client library."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from openseer_process.metric_table import BY_NAME


class Families:
    """The metric families of one scrape. `everywhere`: labels that every sample has."""

    def __init__(self, **everywhere: str) -> None:
        self._everywhere = everywhere
        self._families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}

    def add(self, name: str, value: float, **labels: str) -> None:
        """Adds one sample. Raises KeyError for a metric that is not in the table, and for a missing label."""
        metric, given = BY_NAME[name], {**self._everywhere, **labels}
        if name not in self._families:
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            self._families[name] = kind(name, metric.text, labels=metric.label_names)
        self._families[name].add_metric([given[label] for label in metric.label_names], value)

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._families.values())


class Collected(Collector):
    """A collector that calls the function `collect` at every scrape."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        """The metrics at the moment of the scrape."""
        return self._collect()

    def describe(self) -> Iterable[Metric]:
        """Nothing: the set of metrics may differ between scrapes."""
        return ()
