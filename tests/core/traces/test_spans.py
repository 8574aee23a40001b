"""Spans of batches, requests and weights transactions."""

from dataclasses import replace

from openseer_core.ids import GroupId, RequestId
from openseer_core.queue.messages import APPEND, BatchProgress, Chunk, Result
from openseer_core.queue.states import FinishReason, Status
from openseer_core.tokens import pack_tokens
from openseer_core.traces.of_requests import MOST_EVENTS, BatchTrace, batch_span, lone_request_span, request_span
from openseer_core.traces.of_weights import transaction_spans
from openseer_core.traces.span import TraceSpan
from openseer_core.traces.traceparent import TraceParent
from openseer_core.weights.fleet_spec import WeightsTransaction
from openseer_core.weights.publish import Publish, Source

CALLER = TraceParent(0xABCD, 0xEF)
TRACE = BatchTrace("default/rl", 3, 1000.0, CALLER)
LEASES = (
    Chunk("worker-0#a", 1, 0, 4, 1001.0, 1002.0, "give_back", "v1"),
    Chunk("worker-1#b", 2, 4, 6, 1004.0, 1005.0, "reap", "v1"),
    Chunk("worker-1#c", 3, 6, 9, 1005.5, 1008.0, "complete", "v1"),
)


def result(chunks: tuple[Chunk, ...] = LEASES, *, tokens: int = 9, turn: int = 0, end: float = 1008.0) -> Result:
    return Result(
        cursor=1,
        request=RequestId(GroupId(3, "g"), 2),
        version="v1",
        status=Status.OK,
        reason=FinishReason.STOP,
        stop_reason="SECRET STOP",
        prompt=pack_tokens(range(5)),
        tokens=pack_tokens(range(tokens)),
        logprobs=b"",
        metadata='{"metadata": {"question": "SECRET"}}',
        sampling="{}",
        enqueued_at=1000.5,
        finished_at=end,
        chunks=chunks,
        turn=turn,
    )


def test_a_span_has_leases_moves_losses_and_waits_of_its_request() -> None:
    span = request_span(TRACE, result())
    assert (span.start, span.end) == (1000.5, 1008.0)
    assert span.attributes == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 9,
        "openseer.job": "default/rl",
        "openseer.batch": 3,
        "openseer.group": "g",
        "openseer.index": 2,
        "openseer.turn": 0,
        "openseer.turns": 1,
        "openseer.status": "ok",
        "openseer.finish_reason": "stop",
        "openseer.weights_version": "v1",
        "openseer.chunks": 3,
        "openseer.leases": 3,
        "openseer.moves": 1,
        "openseer.losses": 1,
        "openseer.wait_seconds": 0.5 + 2.0 + 0.5,
        "openseer.run_seconds": 1.0 + 1.0 + 2.5,
        "openseer.worker": "worker-1",
    }
    assert [(event.name, event.at, event.attributes["openseer.worker"]) for event in span.events] == [
        ("claim", 1001.0, "worker-0"),
        ("give_back", 1002.0, "worker-0"),
        ("claim", 1004.0, "worker-1"),
        ("reap", 1005.0, "worker-1"),
        ("claim", 1005.5, "worker-1"),
        ("complete", 1008.0, "worker-1"),
    ]


def test_no_token_text_or_metadata_is_in_a_span() -> None:
    assert "SECRET" not in repr(request_span(TRACE, result()))
    failed = replace(result(), status=Status.INFRA_FAILED, reason=FinishReason.INFRA_FAILED)
    assert "SECRET" not in repr(request_span(TRACE, failed))


def test_requests_are_below_their_batch_and_the_batch_below_its_caller() -> None:
    batch = batch_span(TRACE, BatchProgress(requests=4, ok=4), "v1", 1010.0, {"drafted_tokens": 7})
    request = request_span(TRACE, result())
    assert (batch.trace_id, batch.parent_id, batch.caller) == (CALLER.trace_id, CALLER.span_id, CALLER)
    assert (request.trace_id, request.parent_id) == (batch.trace_id, batch.span_id)
    assert (batch.start, batch.end) == (1000.0, 1010.0)
    assert batch.attributes["openseer.requests"] == 4
    assert batch.attributes["openseer.drafted_tokens"] == 7


def test_a_batch_without_a_caller_has_a_trace_of_its_own() -> None:
    alone = replace(TRACE, parent=None)
    batch = batch_span(alone, BatchProgress(), "v1", 0.0, {})
    assert (batch.parent_id, batch.caller) == (0, None)
    assert batch.end == batch.start
    traces = {alone.trace_id, replace(alone, opened_at=1.0).trace_id, replace(alone, job="a/b").trace_id}
    assert len(traces) == 3


def test_the_ids_of_a_requests_span_follow_from_its_content() -> None:
    assert request_span(TRACE, result()) == request_span(BatchTrace("default/rl", 3, 1000.0, CALLER), result())


def test_a_lone_request_is_below_its_call_or_alone() -> None:
    called, alone = lone_request_span(TRACE, result(), CALLER), lone_request_span(TRACE, result(), None)
    assert (called.trace_id, called.parent_id) == (CALLER.trace_id, CALLER.span_id)
    assert (alone.parent_id, alone.caller) == (0, None)
    assert alone.trace_id not in (CALLER.trace_id, TRACE.trace_id)


def test_a_further_turn_begins_with_the_environments_append() -> None:
    appended = Chunk("", 3, 9, 12, 1020.0, 1020.0, APPEND, "v1")
    again = Chunk("worker-0#a", 4, 12, 15, 1021.0, 1023.0, "complete", "v1")
    span = request_span(TRACE, result((*LEASES, appended, again), tokens=15, turn=1, end=1023.0))
    assert (span.start, span.end) == (1020.0, 1023.0)
    assert span.attributes["openseer.turns"] == 2
    assert span.attributes["openseer.leases"] == 1
    assert span.attributes["openseer.chunks"] == 2
    assert span.attributes["gen_ai.usage.output_tokens"] == 3
    assert span.attributes["gen_ai.usage.input_tokens"] == 5 + 12
    assert span.attributes["openseer.wait_seconds"] == 1.0
    assert span.span_id != request_span(TRACE, result()).span_id


def test_a_turn_without_appended_tokens_begins_with_its_first_lease() -> None:
    again = Chunk("worker-0#a", 4, 9, 15, 1501.0, 1510.0, "complete", "v1")
    span = request_span(TRACE, result((*LEASES, again), tokens=15, turn=1, end=1510.0))
    assert (span.start, span.end) == (1501.0, 1510.0)
    assert (span.attributes["openseer.leases"], span.attributes["openseer.wait_seconds"]) == (1, 0.0)


def test_a_turn_that_no_worker_held_has_no_lease_of_the_turn_before() -> None:
    ended = replace(result(turn=1, end=1501.0), status=Status.ABORTED)
    span = request_span(TRACE, ended)
    assert (span.attributes["openseer.leases"], span.attributes["gen_ai.usage.output_tokens"]) == (0, 0)
    assert (span.start, span.end, span.events) == (1501.0, 1501.0, ())


def carried(chunks: tuple[Chunk, ...], opened_at: float, end: float) -> TraceSpan:
    later = replace(TRACE, batch=4, opened_at=opened_at)
    return request_span(later, replace(result(chunks, end=end), request=RequestId(GroupId(4, "g~3"), 2)))


def test_a_carried_request_begins_with_its_batch_and_omits_old_leases() -> None:
    again = Chunk("worker-0#a", 9, 6, 9, 2001.0, 2003.0, "complete", "v2")
    span = carried((*LEASES[:2], again), 2000.0, 2003.0)
    assert (span.start, span.end) == (2000.0, 2003.0)
    assert [event.at for event in span.events] == [2001.0, 2003.0]
    assert span.attributes["gen_ai.usage.output_tokens"] == 3
    assert (span.attributes["openseer.wait_seconds"], span.attributes["openseer.run_seconds"]) == (1.0, 2.0)


def test_a_carried_result_has_no_wait_after_its_last_lease() -> None:
    assert carried(LEASES, 1000.25, 1900.0).attributes["openseer.wait_seconds"] == 0.5 + 2.0 + 0.5


def test_a_request_that_no_worker_held_has_waited_all_the_time() -> None:
    span = request_span(TRACE, replace(result((), tokens=0), status=Status.INFRA_FAILED))
    assert span.attributes["openseer.wait_seconds"] == 7.5
    assert span.events == ()
    assert "openseer.worker" not in span.attributes
    assert (span.error, span.attributes["error.type"]) == ("stop", "infra_failed")


def test_events_have_a_limit_and_the_count_of_leases_has_none() -> None:
    many = tuple(Chunk("worker-0#a", at, 0, 0, 1001.0 + at, 1001.5 + at, "reap", "v1") for at in range(MOST_EVENTS + 9))
    span = request_span(TRACE, result(many, tokens=0, end=2000.0))
    assert len(span.events) == 2 * MOST_EVENTS
    assert span.attributes["openseer.leases"] == MOST_EVENTS + 9


def transaction(phase: str = "done") -> WeightsTransaction:
    return WeightsTransaction.model_validate(
        {
            "id": 4,
            "publish": Publish(version="v2", source=Source(path="/weights/v2")),
            "previous": "v1",
            "previous_source": None,
            "phase": phase,
            "started_at": 100.0,
            "entered_at": 109.0,
            "finished_at": 109.0,
            "participants": ("worker-0", "worker-1"),
            "message": "worker-1: /secret/path",
            "seconds": {"prefetch": 5.0, "quiesce": 1.0, "load": 3.0},
        }
    )


def test_a_transaction_is_a_trace_with_its_phases() -> None:
    whole, *phases = transaction_spans("default/rl", transaction())
    assert (whole.start, whole.end, whole.parent_id, whole.error) == (100.0, 109.0, 0, "")
    assert whole.attributes["openseer.weights_version"] == "v2"
    assert whole.attributes["openseer.workers"] == 2
    assert [(span.name, span.start, span.end) for span in phases] == [
        ("weights prefetch", 100.0, 105.0),
        ("weights quiesce", 105.0, 106.0),
        ("weights load", 106.0, 109.0),
    ]
    assert {(span.trace_id, span.parent_id) for span in phases} == {(whole.trace_id, whole.span_id)}


def test_a_transaction_that_failed_is_an_error() -> None:
    whole, *_ = transaction_spans("default/rl", transaction("failed"))
    assert whole.error
    assert whole.attributes["error.type"] == "failed"
