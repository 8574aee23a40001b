"""Converts spans to OpenTelemetry's form and sends them as OTLP over HTTP; imported only where traces are enabled."""

import logging
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from openseer_core.traces.span import TraceSpan

SERVICE = "openseer"
"""Default name of the service; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override it."""

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class OtlpSender:
    """Sends spans to the endpoint, with the header fields, certificates, timeout and sampler of OTEL_* variables."""

    def __init__(self) -> None:
        # The exporter logs each failure; span_export counts the failures and logs their sum at intervals.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        self._exporter = OTLPSpanExporter()
        self._sampler = TracerProvider(shutdown_on_exit=False).sampler
        own = Resource({SERVICE_NAME: SERVICE, "service.version": version("openseer")})
        self._resource = own.merge(Resource.create()) if _is_named() else Resource.create().merge(own)
        self._scope = InstrumentationScope("openseer", version("openseer"))

    def send(self, spans: list[TraceSpan]) -> bool:
        """Implements span_export.Sender. Spans that are not sampled count as sent."""
        chosen = [self._readable(span) for span in spans if self._is_sampled(span)]
        return not chosen or self._exporter.export(chosen) is SpanExportResult.SUCCESS

    def end(self) -> None:
        """Implements span_export.Sender."""
        self._exporter.shutdown()

    def _is_sampled(self, span: TraceSpan) -> bool:
        """Whether the sampler selects the span. The result depends only on the span's trace and caller, so that all
        spans of a trace are sent, or none."""
        context = None
        if span.caller is not None:
            flags = _SAMPLED if span.caller.sampled else TraceFlags(TraceFlags.DEFAULT)
            above = SpanContext(span.caller.trace_id, span.caller.span_id, is_remote=True, trace_flags=flags)
            context = set_span_in_context(NonRecordingSpan(above))
        return self._sampler.should_sample(context, span.trace_id, span.name).decision.is_sampled()

    def _readable(self, span: TraceSpan) -> ReadableSpan:
        parent = None
        if span.parent_id:
            is_remote = span.caller is not None and span.caller.span_id == span.parent_id
            parent = SpanContext(span.trace_id, span.parent_id, is_remote=is_remote, trace_flags=_SAMPLED)
        return ReadableSpan(
            span.name,
            SpanContext(span.trace_id, span.span_id, is_remote=False, trace_flags=_SAMPLED),
            parent,
            self._resource,
            span.attributes,
            [Event(event.name, event.attributes, _nanoseconds(event.at)) for event in span.events],
            kind=SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
            start_time=_nanoseconds(span.start),
            end_time=_nanoseconds(span.end),
            instrumentation_scope=self._scope,
        )


def _is_named() -> bool:
    """Whether the environment names the service; OpenTelemetry's default name is unknown_service."""
    return not str(Resource.create().attributes.get(SERVICE_NAME, "")).startswith("unknown_service")


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e6) * 1000
