"""The Prometheus metrics of a driver pod."""

from prometheus_client import CollectorRegistry

from openseer_driver.pod_metrics import PodMetrics
from openseer_driver.run_lines import SampleLine


def test_tokens_do_not_fall_when_the_store_is_rolled_back() -> None:
    metrics, registry = PodMetrics(), CollectorRegistry()
    registry.register(metrics)
    for at, tokens in enumerate((150, 100)):
        metrics.take(SampleLine(float(at), 1, 2, 3, 4, tokens, {}))
        assert registry.get_sample_value("openseer_tokens_total") == 150
