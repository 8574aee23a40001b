"""A model whose layers hold different tokens: admitted requests fill the engine, and none is ever preempted."""

# pyright: reportPrivateUsage=false

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from openseer_core.ids import GroupId, WorkerId
from openseer_core.manifest.job import Model, Parallelism, RolloutSpec, Sampling
from openseer_core.manifest.sampling_json import dump_sampling
from openseer_core.model.job_queue import JobQueue
from openseer_core.queue.group import SHARED_LANE, GroupSpec, Priority
from openseer_core.queue.messages import ClaimQuery, Finish
from openseer_core.queue.policy import policy
from openseer_core.queue.states import Status
from openseer_core.tokens import pack_tokens
from openseer_worker.engine_requests import engine_request
from openseer_worker.running import RunningRequests
from openseer_worker.vllm.engine import VllmEngine
from openseer_worker.vllm.environment import is_cpu_build

pytestmark = [
    pytest.mark.engine,
    # Import warnings of vLLM, torch and their compiled modules.
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(not is_cpu_build(), reason="needs the CPU build of vLLM"),
]

REQUESTS = 96
PROMPT, RESPONSE = 128, 64
BLOCKS = 400
ANN = WorkerId("ann", "1")
VERSION = "v1"
SAMPLING = Sampling(ignore_eos=True)


@dataclass
class Run:
    """A run's maximum of concurrent requests, and its preemptions."""

    most: int = 0
    preemptions: int = 0


class Stepped:
    """An engine stepped by hand, so that the result does not depend on its speed."""

    def __init__(self, folder: Path) -> None:
        arguments = {"num_gpu_blocks_override": BLOCKS + 1, "max_num_seqs": REQUESTS, "max_num_batched_tokens": 640}
        model = Model(path=str(folder), dtype="float32", engine_args={"max_model_len": 512, **arguments})
        self.engine = VllmEngine(model, Parallelism(), SAMPLING, cache_salt="kv")

    def step(self) -> None:
        engine = self.engine
        engine._apply(engine._commands)
        engine._commands = []
        engine._gather(engine._core.get_output())

    def run(self, queue: JobQueue, *, all_at_once: bool) -> Run:
        """Runs all requests of a queue: admitted as by a worker, or added to the engine at once."""
        engine, run, done = self.engine, Run(), 0
        profile, rollout = engine.profile, RolloutSpec()
        running = RunningRequests(profile, policy("fifo"), rollout, profile.slots)
        before = int(engine.metrics()["preemptions"])
        while done < REQUESTS:
            query = ClaimQuery(
                VERSION,
                (SHARED_LANE,),
                running.free_slots,
                10**6 if all_at_once else running.free_blocks,
                profile.layout,
                rollout.quantum_tokens,
                profile.request_tokens,
                running.margin,
                slack=REQUESTS,
            )
            for claim in queue.claim(ANN, query, 0.0):
                running.admit(claim)
                engine.add(engine_request(claim, VERSION))
            self.step()
            run.most = max(run.most, int(engine.metrics()["running"]))
            for output in engine.collect():
                running.take(output, "v1")
            for response in running.ended():
                assert response.finish is not None
                assert response.generated == RESPONSE
                queue.complete([Finish(response.delta(), Status.OK, response.finish)], 0.0)
                running.drop(response.key)
                done += 1
        run.preemptions = int(engine.metrics()["preemptions"]) - before
        return run


def queue() -> JobQueue:
    """A queue of so many prompts without common tokens."""
    queue, draw = JobQueue(), random.Random(1)
    for place in range(REQUESTS):
        prompt = pack_tokens(draw.randrange(4, 90) for _ in range(PROMPT))
        queue.submit(
            GroupSpec(
                GroupId(0, f"g{place:02}"), VERSION, place, prompt, RESPONSE, (0.0,), (SHARED_LANE,),
                Priority(float(place)), 0.0, sampling=dump_sampling(SAMPLING),
            )
        )  # fmt: skip
    return queue


@pytest.fixture(scope="module")
def stepped(windowed_folder: Path) -> Iterator[Stepped]:
    stepped = Stepped(windowed_folder)
    yield stepped
    asyncio.run(stepped.engine.close())


def test_admitted_requests_fill_the_engine_without_preemption(stepped: Stepped) -> None:
    own = stepped.run(queue(), all_at_once=True)
    ours = stepped.run(queue(), all_at_once=False)
    assert own.preemptions > 0
    assert ours.preemptions == 0
    assert ours.most >= 0.9 * own.most
