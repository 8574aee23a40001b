"""Sends spans to where OpenTelemetry's own variables say; nobody who gives them waits, whatever the receiver does."""

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
"""Spans that wait to be sent; further ones are dropped, and counted."""
BATCH_SPANS = 512
"""Of one call to the receiver."""
SEND_SECONDS = 1.0
"""Between two looks at what waits."""
CLOSE_SECONDS = 5.0
"""How long what waits may still be sent when the process ends."""
TELL_SECONDS = 60.0
"""Losses are told in the log so often."""
EXTRA = "pip install 'openseer[traces]'"

log = logging.getLogger(__name__)


class SpanTaker(Protocol):
    """What makes spans gives them to."""

    def give(self, spans: Iterable[TraceSpan]) -> None:
        """Returns at once. Of one thread at a time."""
        ...


class Sender(Protocol):
    """Sends spans to a receiver."""

    def send(self, spans: list[TraceSpan]) -> bool:
        """Whether they have been taken. May take long, and is called by one thread alone."""
        ...

    def end(self) -> None:
        """A `send` that goes on gives up."""
        ...


class SpanExport:
    """A queue of spans and the thread that sends them. `sent`, `lost`: how many so far; those lost found no room in the
    queue, or their receiver did not take them."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._waiting: deque[TraceSpan] = deque()
        self._ends = threading.Event()
        self._told, self._told_at = 0, float("-inf")
        self._no_room = self._refused = self.sent = 0
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Of both kinds."""
        return self._no_room + self._refused

    def give(self, spans: Iterable[TraceSpan]) -> None:
        """Puts them into the queue, those that find room there. Of one thread at a time."""
        for span in spans:
            if len(self._waiting) < QUEUE_SPANS:
                self._waiting.append(span)
            else:
                self._no_room += 1

    def close(self) -> None:
        """Sends what waits, for CLOSE_SECONDS at most. Blocks."""
        self._ends.set()
        self._thread.join(CLOSE_SECONDS)
        self._sender.end()

    def _run(self) -> None:
        ends = False
        while not ends:
            ends = self._ends.wait(SEND_SECONDS)
            while count := min(len(self._waiting), BATCH_SPANS):
                self._send([self._waiting.popleft() for _ in range(count)])
            self._tell()

    def _send(self, spans: list[TraceSpan]) -> None:
        if self._sender.send(spans):
            self.sent += len(spans)
        else:
            self._refused += len(spans)
        self._tell()

    def _tell(self) -> None:
        now, lost = time.monotonic(), self.lost
        if lost > self._told and now - self._told_at >= TELL_SECONDS:
            self._told, self._told_at = lost, now
            log.warning(
                "traces: %d spans are lost so far, %d for want of room: see their receiver", lost, self._no_room
            )


def is_asked_for(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether OpenTelemetry's variables ask for traces, by an endpoint or the exporter `otlp`, and allow them."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return exporter == "otlp" or (not exporter and any(environment.get(name) for name in endpoints))


@asynccontextmanager
async def span_export(environment: Mapping[str, str] = os.environ) -> AsyncGenerator[SpanExport | None]:
    """As open_export gives it, closed at the end; threads do what takes long."""
    export = await asyncio.to_thread(open_export, environment) if is_asked_for(environment) else None
    try:
        yield export
    finally:
        if export is not None:
            await asyncio.to_thread(export.close)


def open_export(environment: Mapping[str, str] = os.environ) -> SpanExport | None:
    """None where traces are not asked for, or cannot be sent: then the log says why, for no rollout fails by that."""
    if not is_asked_for(environment):
        return None
    protocol = environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in (None, "", "http/protobuf"):
        log.warning("no traces: OTEL_EXPORTER_OTLP_PROTOCOL: found %s, allowed: http/protobuf", protocol)
        return None
    try:
        from openseer_process.otlp import OtlpSender  # noqa: PLC0415 - optional
    except ImportError as error:
        log.warning("no traces: they need OpenTelemetry's packages (%s): %s", error, EXTRA)
        return None
    try:
        return SpanExport(OtlpSender())
    except Exception as error:  # noqa: BLE001 - of whatever kind OpenTelemetry finds fit for a wrong variable
        log.warning("no traces: OpenTelemetry's settings are wrong: %s", error)
        return None
