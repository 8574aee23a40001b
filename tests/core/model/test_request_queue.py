"""The reference queue alone; tests/store checks it and Redis against one contract."""

from hypothesis import given
from hypothesis import strategies as st

from openseer_core.ids import GroupId, RequestId, WorkerId
from openseer_core.model.job_queue import JobQueue
from openseer_core.model.sorted_set import SortedSet
from openseer_core.queue.group import SHARED_LANE, GroupSpec, Priority
from openseer_core.queue.kv_blocks import whole
from openseer_core.queue.messages import REAP_LIMIT, Claim, ClaimQuery, Delta, Finish, Result, WriteOutcome
from openseer_core.queue.policy import policy
from openseer_core.queue.states import FinishReason, Status
from openseer_core.tokens import pack_tokens

ANN = WorkerId("ann", "1")
ASK = ClaimQuery(
    "v", (SHARED_LANE,), slots=100, blocks=10**6, layout=whole(16), quantum=64, context_tokens=999, slack=100
)


def group(name: str, size: int, priority: Priority, max_tokens: int = 50) -> GroupSpec:
    lanes = (SHARED_LANE,) * size
    return GroupSpec(GroupId(0, name), "v", 0, b"", max_tokens, (0.0,) * size, lanes, priority, enqueued_at=0.0)


def queue_of(*groups: GroupSpec) -> JobQueue:
    queue = JobQueue()
    for spec in groups:
        queue.submit(spec)
    return queue


def end(claim: Claim, count: int) -> Finish:
    tokens = pack_tokens(range(count))
    return Finish(Delta(claim.request, claim.fence, 0, tokens, tokens), Status.OK, FinishReason.STOP)


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(1, 4)), min_size=1, max_size=8))
def test_claims_come_in_the_order_of_the_priority_formula(rows: list[tuple[int, int]]) -> None:
    groups = [group(f"{place}", size, Priority(float(base))) for place, (base, size) in enumerate(rows)]
    claims = queue_of(*groups).claim(ANN, ASK, 0.0)
    assert len(claims) == sum(size for _, size in rows)
    scores = [claim.priority.request_score(claim.bias, claim.generated, is_probe=False) for claim in claims]
    assert scores == sorted(scores)


def test_an_ended_probe_sets_the_longest_finished_length() -> None:
    chosen = policy("context-aware")
    specs = [group(name, 2, Priority(0.0)) for name in ("a", "b")]
    queue = queue_of(*(group(spec.id.name, 2, chosen.priority(spec.view())) for spec in specs))
    probes = queue.claim(ANN, ClaimQuery("v", ("",), 2, 10**6, whole(16), 64, context_tokens=999, slack=100), 0.0)
    assert [claim.request.index for claim in probes] == [0, 0]
    queue.complete([end(probes[0], 10)], 1.0)
    assert queue.view(GroupId(0, "a")).longest_finished == 10


def test_one_call_takes_back_a_bounded_number_of_leases() -> None:
    queue = queue_of(group("a", REAP_LIMIT + 10, Priority(0.0)))
    queue.claim(ANN, ASK, 0.0)
    assert [queue.reap(11.0, 3), queue.reap(11.0, 3), queue.reap(11.0, 3)] == [REAP_LIMIT, 10, 0]


def test_a_lease_expires_at_its_deadline() -> None:
    queue = queue_of(group("a", 1, Priority(0.0)))
    queue.claim(ANN, ASK, 0.0)
    assert [queue.reap(9.999, 3), queue.reap(10.0, 3)] == [0, 1]


def test_a_result_is_stored_once_though_its_end_is_reported_twice() -> None:
    queue = queue_of(group("a", 1, Priority(0.0)))
    [claim] = queue.claim(ANN, ASK, 0.0)
    replies = queue.complete([end(claim, 3), end(claim, 3)], 1.0)
    assert [reply.outcome for reply in replies] == [WriteOutcome.OK, WriteOutcome.OK]
    assert [entry.request for entry in queue.results(0, 0, 10) if isinstance(entry, Result)] == [
        RequestId(GroupId(0, "a"), 0)
    ]
    assert queue.progress(0).tokens == 3


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(-3, 3) | st.none())))
def test_a_sorted_set_is_ordered_by_score_then_name(steps: list[tuple[str, int | None]]) -> None:
    found, model = SortedSet(), dict[str, float]()
    for name, score in steps:
        if score is None:
            found.discard(name)
            model.pop(name, None)
        else:
            found.put(name, score)
            model[name] = score
    expected = sorted((score, name) for name, score in model.items())
    assert found.first(10) == expected
    assert found.up_to(0, 10) == [name for score, name in expected if score <= 0]
    assert [found.at(0), len(found)] == [expected[0] if expected else None, len(expected)]
