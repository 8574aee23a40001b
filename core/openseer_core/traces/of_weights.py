"""The trace of a weights transaction: a span of the whole transaction, and below it a span of each phase."""

from openseer_core.traces.span import Attribute, TraceSpan, span_id_of, trace_id_of
from openseer_core.weights.fleet_spec import WeightsTransaction


def transaction_spans(job: str, transaction: WeightsTransaction) -> list[TraceSpan]:
    """The spans of a transaction that has ended. `job`: NAMESPACE/NAME. The span of each phase begins at the end of the
    one before; its length is the sum over the phase's attempts."""
    publish, failed = transaction.publish, transaction.phase == "failed"
    end = transaction.finished_at if transaction.finished_at is not None else transaction.entered_at
    trace = trace_id_of(job, "weights", transaction.id, transaction.started_at)
    attributes: dict[str, Attribute] = {
        "openseer.job": job,
        "openseer.transaction": transaction.id,
        "openseer.weights_version": publish.version,
        "openseer.previous_version": transaction.previous,
        "openseer.mode": publish.mode,
        "openseer.attempts": transaction.attempt + 1,
        "openseer.workers": len(transaction.participants),
        "openseer.replaced": len(transaction.replaced),
        "openseer.phase": transaction.phase,
    }
    if publish.adapter is not None:
        attributes["openseer.adapter"] = publish.adapter.name
    whole = TraceSpan(
        "weights",
        trace,
        span_id_of(trace, "weights"),
        0,
        transaction.started_at,
        end,
        attributes | ({"error.type": "failed"} if failed else {}),
        error="the transaction has failed: see the API's log" if failed else "",
    )
    spans, at = [whole], transaction.started_at
    for phase, seconds in transaction.seconds.items():
        told_of_phase: dict[str, Attribute] = {"openseer.job": job, "openseer.phase": phase}
        identity = span_id_of(trace, phase)
        spans.append(TraceSpan(f"weights {phase}", trace, identity, whole.span_id, at, at + seconds, told_of_phase))
        at += seconds
    return spans
