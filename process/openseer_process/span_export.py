"""Exports spans to the endpoint in OpenTelemetry's environment variables. A thread sends; `give` never blocks."""

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

from openseer_core.traces.span import TraceSpan

QUEUE_SPANS = 8192
"""Limit of spans that wait to be sent; further spans are dropped and counted."""
BATCH_SPANS = 512
"""Limit of spans per call to the receiver."""
SEND_SECONDS = 1.0
"""Interval at which the queue is sent, in seconds."""
CLOSE_SECONDS = 5.0
"""Timeout of sending the waiting spans when the process ends, in seconds."""
REPORT_SECONDS = 60.0
"""Least interval between log lines about lost spans, in seconds."""
EXTRA = "pip install 'openseer[traces]'"
"""The command that installs OpenTelemetry's packages."""

log = logging.getLogger(__name__)


class SpanTaker(Protocol):
    """Receives spans."""

    def give(self, spans: Iterable[TraceSpan]) -> None:
        """Adds spans and returns at once. Only one thread at a time may call it."""
        ...


class Sender(Protocol):
    """Sends spans to a receiver."""

    def send(self, spans: list[TraceSpan]) -> bool:
        """Sends the spans; returns whether the receiver accepted them. May take long; only one thread calls it."""
        ...

    def end(self) -> None:
        """Ends the sender; a running `send` fails."""
        ...


class SpanExport:
    """A queue of spans and the thread that sends them. `sent`, `lost`: numbers of spans so far. A span is lost if the
    queue is full, if the receiver refuses it, or if it is not sent when the export is closed."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._waiting: deque[TraceSpan] = deque()
        self._ends = threading.Event()
        self._reported, self._reported_at = 0, float("-inf")
        self._queued = self._no_room = self._refused = self.sent = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Number of spans dropped at a full queue or refused by the receiver; after `close` also of unsent spans."""
        return self._no_room + (self._queued - self.sent if self._closed else self._refused)

    def give(self, spans: Iterable[TraceSpan]) -> None:
        """Adds spans to the queue; drops spans beyond QUEUE_SPANS. Only one thread at a time may call it."""
        for span in spans:
            if len(self._waiting) < QUEUE_SPANS:
                self._waiting.append(span)
                self._queued += 1
            else:
                self._no_room += 1

    def close(self) -> None:
        """Sends the waiting spans; blocks for at most CLOSE_SECONDS. Remaining spans are lost, which is logged."""
        self._ends.set()
        self._thread.join(CLOSE_SECONDS)
        self._closed = True
        if self._thread.is_alive():
            self._reported_at = float("-inf")
            self._report_losses()
        self._sender.end()

    def _run(self) -> None:
        ends = False
        while not ends:
            ends = self._ends.wait(SEND_SECONDS)
            while count := min(len(self._waiting), BATCH_SPANS):
                self._send([self._waiting.popleft() for _ in range(count)])
            self._report_losses()

    def _send(self, spans: list[TraceSpan]) -> None:
        if self._sender.send(spans):
            self.sent += len(spans)
        else:
            self._refused += len(spans)
        self._report_losses()

    def _report_losses(self) -> None:
        now, lost = time.monotonic(), self.lost
        if lost > self._reported and now - self._reported_at >= REPORT_SECONDS:
            self._reported, self._reported_at = lost, now
            log.warning(
                "traces: %d spans lost so far, %d because the queue was full: check the receiver", lost, self._no_room
            )


def is_asked_for(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether OpenTelemetry's variables enable export, by an endpoint or the exporter `otlp`, and do not disable it."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return exporter == "otlp" or (not exporter and any(environment.get(name) for name in endpoints))


@asynccontextmanager
async def span_export(environment: Mapping[str, str] = os.environ) -> AsyncGenerator[SpanExport | None]:
    """The result of `open_export`, closed at the end of the block; blocking calls run in threads."""
    export = await asyncio.to_thread(open_export, environment) if is_asked_for(environment) else None
    try:
        yield export
    finally:
        if export is not None:
            await asyncio.to_thread(export.close)


def open_export(environment: Mapping[str, str] = os.environ) -> SpanExport | None:
    """Opens an export. Returns None if traces are not enabled. Also returns None, and logs the reason, if they cannot
    be sent: missing traces must not fail a rollout."""
    if not is_asked_for(environment):
        return None
    protocol = environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in (None, "", "http/protobuf"):
        log.warning("no traces: OTEL_EXPORTER_OTLP_PROTOCOL: found %s, allowed: http/protobuf", protocol)
        return None
    try:
        from openseer_process.otlp import OtlpSender  # noqa: PLC0415 - optional
    except ImportError as error:
        log.warning("no traces: OpenTelemetry's packages are missing (%s): %s", error, EXTRA)
        return None
    try:
        return SpanExport(OtlpSender())
    except Exception as error:  # noqa: BLE001 - OpenTelemetry raises various types for a wrong variable
        log.warning("no traces: OpenTelemetry's settings are wrong: %s", error)
        return None
