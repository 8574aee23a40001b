"""Spans are sent to an OTLP receiver; a slow, missing or failing receiver loses spans and nothing else."""

import logging
import sys
import threading

import pytest

from openseer_core.traces.span import SpanEvent, TraceSpan
from openseer_core.traces.traceparent import TraceParent
from openseer_process.span_export import QUEUE_SPANS, SpanExport, is_asked_for, open_export
from tests.otlp_receiver import OtlpReceiver, values
from tests.ports import reserved_port


class Played:
    """A receiver in this process. `held`: it accepts nothing before `release`."""

    def __init__(self, *, held: bool = False, takes: bool = True) -> None:
        self.came: list[TraceSpan] = []
        self.begun, self.release = threading.Event(), threading.Event()
        self._takes = takes
        if not held:
            self.release.set()

    def send(self, spans: list[TraceSpan]) -> bool:
        self.begun.set()
        self.release.wait()
        self.came += spans
        return self._takes

    def end(self) -> None:
        self.release.set()


def span(number: int = 1, *, parent: int = 0, caller: TraceParent | None = None, error: str = "") -> TraceSpan:
    trace = caller.trace_id if caller is not None else 7
    event = SpanEvent("claim", 1_795_000_000.5, {"openseer.worker": "worker-0"})
    return TraceSpan(
        "request", trace, number, parent, 1_795_000_000.25, 1_795_000_001.0, {"a": 1}, (event,), error, caller
    )


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without settings of traces."""
    for name in ("OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_SAMPLER"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def sent_to(receiver: OtlpReceiver, clean: pytest.MonkeyPatch, *spans: TraceSpan) -> SpanExport:
    """A closed export that has sent the spans."""
    clean.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    export = open_export()
    assert export is not None
    export.give(spans)
    export.close()
    return export


def test_an_exported_span_arrives_unchanged(clean: pytest.MonkeyPatch) -> None:
    clean.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=let-me-in")
    caller = TraceParent(0xABC, 0xDEF)
    with OtlpReceiver() as receiver:
        export = sent_to(receiver, clean, span(5, parent=caller.span_id, caller=caller, error="infra_failed"))
    assert (export.sent, export.lost) == (1, 0)
    [came] = receiver.spans
    assert (int(came.trace_id.hex(), 16), int(came.span_id.hex(), 16)) == (0xABC, 5)
    assert int(came.parent_span_id.hex(), 16) == 0xDEF
    assert (came.start_time_unix_nano, came.end_time_unix_nano) == (
        1_795_000_000_250_000_000,
        1_795_000_001_000_000_000,
    )
    assert values(came.attributes) == {"a": 1}
    [event] = came.events
    assert (event.name, event.time_unix_nano) == ("claim", 1_795_000_000_500_000_000)
    assert (came.status.code, came.status.message) == (2, "infra_failed")
    assert receiver.resources[0]["service.name"] == "openseer"
    assert receiver.headers[0]["x-key"] == "let-me-in"


def test_the_environment_sets_the_name_of_the_service(clean: pytest.MonkeyPatch) -> None:
    clean.setenv("OTEL_SERVICE_NAME", "rollouts")
    with OtlpReceiver() as receiver:
        sent_to(receiver, clean, span())
    assert receiver.resources[0]["service.name"] == "rollouts"


@pytest.mark.parametrize(
    ("sampler", "sampled", "arrives"),
    [("", True, True), ("", False, False), ("always_on", False, True), ("always_off", True, False)],
)
def test_the_sampler_and_the_callers_flag_decide(
    clean: pytest.MonkeyPatch, sampler: str, sampled: bool, arrives: bool
) -> None:
    if sampler:
        clean.setenv("OTEL_TRACES_SAMPLER", sampler)
    with OtlpReceiver() as receiver:
        sent_to(receiver, clean, span(caller=TraceParent(1, 2, sampled)))
    assert bool(receiver.spans) is arrives


def test_a_receiver_that_blocks_does_not_block_the_giver() -> None:
    receiver = Played(held=True)
    export = SpanExport(receiver)
    export.give([span()])
    assert receiver.begun.wait(30)
    export.give(span(number) for number in range(1, QUEUE_SPANS + 101))
    assert export.lost == 100
    receiver.release.set()
    export.close()
    assert (len(receiver.came), export.sent, export.lost) == (QUEUE_SPANS + 1, QUEUE_SPANS + 1, 100)


def test_a_process_ends_although_its_receiver_never_answers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("openseer_process.span_export.CLOSE_SECONDS", 0.1)
    receiver = Played(held=True, takes=False)
    export = SpanExport(receiver)
    export.give([span(1)])
    assert receiver.begun.wait(30)
    export.give([span(2)])
    export.close()
    assert receiver.release.is_set()
    assert (export.sent, export.lost) == (0, 2)
    [told] = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert told.startswith("traces: 2 spans lost so far")


def test_refused_spans_are_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    export = SpanExport(Played(takes=False))
    export.give(span(number) for number in range(1, 2000))
    export.close()
    assert (export.sent, export.lost) == (0, 1999)
    [told] = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "spans lost so far" in told


def test_a_missing_receiver_loses_only_spans(clean: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    clean.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{reserved_port()}")
    clean.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    export = open_export()
    assert export is not None
    export.give([span()])
    export.close()
    assert (export.sent, export.lost) == (0, 1)
    assert [record.name for record in caplog.records] == ["openseer_process.span_export"]


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}, False),
    ],
)
def test_traces_are_off_unless_the_environment_turns_them_on(environment: dict[str, str], asked: bool) -> None:
    assert is_asked_for(environment) is asked


def test_missing_packages_are_named_and_nothing_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "openseer_process.otlp", None)
    assert open_export({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}) is None
    assert "pip install 'openseer[traces]'" in caplog.text


def test_an_unsupported_protocol_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    assert open_export({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}) is None
    assert "found grpc, allowed: http/protobuf" in caplog.text
