"""The trainer's present span, if OpenTelemetry's packages are loaded; without them nothing is imported."""

import sys
from typing import Any

_TRACE = "opentelemetry.trace"


def caller_headers() -> dict[str, str]:
    """The header field traceparent of the present span; {} if there is none."""
    trace: Any = sys.modules.get(_TRACE)
    if trace is None:
        return {}
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"}
