"""A trainer's present span travels with the batch that it opens."""

import subprocess
import sys

from opentelemetry.sdk.trace import TracerProvider

from openseer_client.http import calls
from openseer_core.traces.traceparent import TraceParent
from openseer_core.wire.batches import BatchSpec


def test_a_batch_opened_within_a_span_sends_the_span() -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("trainer")
    with tracer.start_as_current_span("step") as span:
        headers = calls.open_batch(BatchSpec(), "step-1").headers
    context = span.get_span_context()
    assert TraceParent.parse(headers["traceparent"]) == TraceParent(context.trace_id, context.span_id, sampled=True)
    assert headers["Idempotency-Key"] == "step-1"


def test_outside_of_spans_nothing_is_sent() -> None:
    assert "traceparent" not in calls.open_batch(BatchSpec(), None).headers


def test_the_client_imports_nothing_of_opentelemetry() -> None:
    told = "import sys, openseer_client; assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    subprocess.run([sys.executable, "-c", told], check=True)
