"""Engine requests of leases: a separate seed for each position, and no request that the engine cannot run."""

import asyncio

import pytest

from openseer_core.admission import ModelLimits
from openseer_core.ids import GroupId
from openseer_core.manifest.job import RolloutJob, Sampling
from openseer_core.manifest.parse import parse_job
from openseer_core.manifest.sampling_json import dump_sampling
from openseer_core.queue.group import GroupSpec, Priority
from openseer_core.queue.messages import Result
from openseer_core.queue.states import FinishReason, Status
from openseer_core.tokens import count_items, pack_tokens
from openseer_store.memory import MemoryStore
from openseer_worker.engine_requests import derive_seed
from openseer_worker.loop import Worker
from openseer_worker.scripted.engine import ScriptedEngine
from openseer_worker.scripted.virtual_time import run_virtual
from openseer_worker.settings import WorkerSettings

KV_TOKENS = 8 * 16


def job() -> RolloutJob:
    scripted = {"kvBlocks": 8, "blockTokens": 16, "maxModelLen": 1024, "slots": 4}
    spec = {"model": {"path": "none", "engine": "scripted", "scripted": scripted}, "prompts": {"path": "none"}}
    name = {"name": "misfits"}
    document = {"apiVersion": "openseer.dev/v1alpha1", "kind": "RolloutJob", "metadata": name, "spec": spec}
    return parse_job(document, "test")


def group(name: str, prompt: list[int], sampling: Sampling, lengths: tuple[int, ...] = ()) -> GroupSpec:
    return GroupSpec(
        GroupId(0, name), "initial", 0, pack_tokens(prompt), sampling.max_tokens, (0.0,), ("",), Priority(0.0), 0.0,
        lengths, dump_sampling(sampling),
    )  # fmt: skip


FITS = group("fits", [1, 2, 3], Sampling(max_tokens=8))


def ends_of(*groups: GroupSpec) -> tuple[dict[str, Result], ModelLimits]:
    """Runs these groups on one worker for up to ten seconds; returns the results and the reported limits."""
    found: dict[str, Result] = {}
    reported: list[ModelLimits] = []

    async def main() -> None:
        store = MemoryStore(asyncio.get_running_loop().time)
        await store.submit(list(groups))
        await store.seal(0)
        settings = WorkerSettings(job(), "", 0)
        worker = Worker(settings, store, ScriptedEngine(settings.job.spec.model.scripted))
        task = asyncio.create_task(worker.run())
        await asyncio.sleep(10)
        [status] = await store.workers()
        reported.append(status.heartbeat.metrics.limits)
        entries = await store.results(0, 0, 100)
        found.update({entry.request.group.name: entry for entry in entries if isinstance(entry, Result)})
        worker.drain()
        await task

    run_virtual(main())
    return found, reported[0]


@pytest.mark.parametrize(
    ("group", "told"),
    [
        (
            group("long", [1] * 400, Sampling()),
            "400 tokens do not fit a worker's KV cache, allowed with the response: 128",
        ),
        (group("full", [1] * 128, Sampling()), "128 tokens leave no room for a response in a worker's KV cache"),
        (group("token", [1, 2**18], Sampling()), "prompt_token_ids[1]: found token 262144,"),
        (group("stop", [1], Sampling(stop_token_ids=(2**20,))), "stop_token_ids[0]: found token 1048576,"),
        (
            group("forced", [1] * 100, Sampling(force_lengths=True), (40,)),
            "100 tokens and the response's 40 do not fit",
        ),
    ],
    ids=lambda value: value.id.name if isinstance(value, GroupSpec) else "",
)
def test_a_request_that_does_not_fit_fails_and_others_continue(group: GroupSpec, told: str) -> None:
    found, _ = ends_of(group, FITS)
    refused = found[group.id.name]
    assert (refused.status, refused.reason, refused.tokens) == (Status.INFRA_FAILED, FinishReason.INFRA_FAILED, b"")
    assert told in refused.stop_reason
    assert found["fits"].status is Status.OK


def test_a_response_ends_at_the_limit_of_its_workers_kv_cache() -> None:
    found, _ = ends_of(group("grows", [1] * 100, Sampling(ignore_eos=True)))
    grown = found["grows"]
    assert (grown.status, grown.reason) == (Status.OK, FinishReason.CONTEXT_FULL)
    assert count_items(grown.tokens) == KV_TOKENS - 100


def test_a_worker_reports_the_limits_of_one_request() -> None:
    _, limits = ends_of(FITS)
    assert limits == ModelLimits(context_tokens=1024, vocabulary=2**18, worker_tokens=KV_TOKENS)


def test_a_seed_is_stable_and_fits_63_bits() -> None:
    assert derive_seed(7, "g-1", 3, 128) == derive_seed(7, "g-1", 3, 128) == 7696138362114974435
    assert all(0 <= derive_seed(0, "g", 0, position) < 2**63 for position in range(1000))


def test_no_two_places_share_a_seed() -> None:
    """A moved response, its siblings, other groups and other jobs have different noise."""
    seeds = {
        derive_seed(seed, group, index, position)
        for seed in (0, 1)
        for group in ("g", "g1", "1")
        for index in range(12)
        for position in range(0, 2000, 7)
    }
    assert len(seeds) == 2 * 3 * 12 * len(range(0, 2000, 7))
