"""The claims of a simulated rollout, repeated on a real Redis: the same requests, in the same order.

The simulator uses core's reference queue. Its calls are recorded and repeated on Redis at the same times.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import pytest

from openseer_core.ids import WorkerId
from openseer_core.manifest.fleet import PolicyName, RolloutSpec
from openseer_core.model.claimers import Claimers
from openseer_core.model.job_queue import JobQueue
from openseer_core.numbers import FIRST_BASE, base_of
from openseer_core.queue.batch import BatchRecord, OpenBatch
from openseer_core.queue.group import GroupSpec
from openseer_core.queue.messages import Claim, ClaimQuery, Delta, ExtendReply, Finish, Reply, Rescore, WriteOutcome
from openseer_core.worker.heartbeat import Heartbeat, WorkerState
from openseer_core.worker.metrics import WorkerMetrics
from openseer_sim.divided import DividedRollout
from openseer_sim.engine import StepTime
from openseer_sim.fleet import Loss, ModelledFleet
from openseer_sim.work import LengthModel
from openseer_store.redis_store import RedisStore
from tests.store.builders import Clock

CAP = 1_024
STEP = StepTime(((1.0, 0.01), (100.0, 0.02)), per_context=0.0, per_prefill=1e-5)
FLEET = ModelledFleet(3, STEP, kv_tokens=4_000, slots=4, look_seconds=0.2, losses=(Loss(3.0, 1, 2.0),))
WORK = LengthModel(250, CAP, spread=1.0, correlation=0.7).draw(10, 4, seed=5, prompt=32)
START = 1_000.0
"""The store's clock when the simulation begins, in seconds."""


ANY = WorkerId("worker-0", "sim")
"""The worker that reports every end; its name does not affect the outcome."""


Call = Callable[[RedisStore], Coroutine[Any, Any, Any]]
Answer = Sequence[tuple[str, int, int] | WriteOutcome] | None
"""Claims, or outcomes of writes; None for a call whose answer is compared elsewhere."""


@dataclass
class Transcript:
    """Each call as (seconds, call of the store), with the answers of the queue."""

    calls: list[tuple[float, Call]] = field(default_factory=list[tuple[float, Call]])
    answers: list[Answer] = field(default_factory=list[Answer])
    clock: Callable[[], float] = lambda: 0.0

    def keep(self, now: float, call: Call, answer: Answer) -> None:
        self.calls.append((now, call))
        self.answers.append(answer)

    def beat(self, worker: WorkerId, heartbeat: Heartbeat) -> None:
        self.keep(self.clock(), lambda store: store.heartbeat(worker, heartbeat), None)


class KeptClaimers(Claimers):
    """Records the heartbeats that the simulator implies."""

    def __init__(self, transcript: Transcript) -> None:
        super().__init__()
        self._transcript = transcript

    def note_heartbeat(self, name: str, limit: int | None, now: float, free_pace: float) -> None:
        super().note_heartbeat(name, limit, now, free_pace)
        metrics = WorkerMetrics({"worker_tokens": limit or 0, "free_pace": free_pace})
        self._transcript.beat(WorkerId(name, ANY.boot), Heartbeat(WorkerState.BUSY, metrics))

    def count_out(self, name: str) -> None:
        super().count_out(name)
        self._transcript.beat(WorkerId(name, ANY.boot), Heartbeat(WorkerState.DRAINING))


class KeptQueue(JobQueue):
    """A queue that records its calls, with the fences of a store of that epoch."""

    def __init__(self, transcript: Transcript, epoch: int) -> None:
        super().__init__(FIRST_BASE, fence_base=base_of(epoch))
        self.keep = transcript.keep
        self.claimers = KeptClaimers(transcript)

    def open_batch(self, batch: OpenBatch, now: float) -> tuple[BatchRecord, bool]:
        answer = super().open_batch(batch, now)
        self.keep(now, lambda store: store.open_batch(batch), None)
        return answer

    def submit(self, spec: GroupSpec) -> bool:
        self.keep(0.0, lambda store: store.submit([spec]), None)
        return super().submit(spec)

    def seal(self, batch: int) -> None:
        super().seal(batch)
        self.keep(0.0, lambda store: store.seal(batch), None)

    def claim(self, worker: WorkerId, query: ClaimQuery, now: float) -> list[Claim]:
        answer = super().claim(worker, query, now)
        self.keep(now, lambda store: store.claim(worker, query), [shown(claim) for claim in answer])
        return answer

    def extend(
        self, worker: WorkerId, deltas: list[Delta], rescores: list[Rescore], now: float, **rest: Any
    ) -> ExtendReply:
        answer = super().extend(worker, deltas, rescores, now, **rest)
        self.keep(now, lambda store: store.extend(worker, deltas, rescores, **rest), None)
        return answer

    def complete(self, finishes: list[Finish], now: float) -> list[Reply]:
        answer = super().complete(finishes, now)
        self.keep(now, lambda store: store.complete(ANY, finishes), [reply.outcome for reply in answer])
        return answer

    def give_back(self, deltas: list[Delta], now: float, *, lost: bool = False) -> list[Reply]:
        answer = super().give_back(deltas, now, lost=lost)
        self.keep(now, lambda store: store.give_back(ANY, deltas, lost=lost), [reply.outcome for reply in answer])
        return answer


def shown(claim: Claim) -> tuple[str, int, int]:
    return str(claim.request), claim.fence, claim.generated


async def told_again(
    url: str, job: str, policy: PolicyName, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Answer], list[Answer]]:
    """The answers of the simulator's queue, and those of Redis."""
    clock = Clock(START)
    store = RedisStore(url, job, clock=clock, retry_seconds=5.0)
    await store.connect()
    transcript = Transcript()
    monkeypatch.setattr(DividedRollout, "queue_type", partial(KeptQueue, transcript, store.epoch))
    rollout = RolloutSpec(policy=policy, quantum_tokens=8 * FLEET.block)
    played = DividedRollout(FLEET, WORK, CAP, rollout)
    transcript.clock = lambda: played.now
    played.run()
    assert played.outcome.moves > 0
    answers: list[Answer] = []
    for now, call in transcript.calls:
        clock.seconds = START + now
        answers.append(plain(await call(store)))
    await store.close()
    return transcript.answers, answers


def plain(answer: Any) -> Answer:
    if not isinstance(answer, list):
        return None
    parts = cast("list[Claim | Reply]", answer)
    return [shown(part) if isinstance(part, Claim) else part.outcome for part in parts]


@pytest.mark.redis
@pytest.mark.parametrize("policy", ["context-aware", "fifo", "longest-first-oracle"])
def test_redis_returns_the_claims_of_the_simulators_queue(
    policy: PolicyName, redis_url: str, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, found = asyncio.run(told_again(redis_url, job, policy, monkeypatch))
    assert sum(len(answer) for answer in expected if answer and isinstance(answer[0], tuple)) > 40
    for number, (one, other) in enumerate(zip(expected, found, strict=True)):
        assert one == other, f"call {number} of {len(expected)}"
