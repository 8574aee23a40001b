"""The scripted engine: given lengths, vLLM's rules of slots and blocks, and the step-time model, on virtual time."""

import asyncio
import statistics
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from openseer_core.errors import EngineError
from openseer_core.manifest.job import Sampling, Scripted, ScriptedPool
from openseer_core.queue.states import FinishReason
from openseer_core.tokens import unpack_logprobs, unpack_tokens
from openseer_core.worker.context_metrics import ContextCounts
from openseer_worker.engine import EngineRequest
from openseer_worker.scripted.engine import ScriptedEngine
from openseer_worker.scripted.text import drawn_length, scripted_logprobs, scripted_tokens
from openseer_worker.scripted.virtual_time import run_virtual

STEPS = Scripted(
    step_seconds=1.0, step_seconds_per_request=0.0, prefill_tokens_per_second=1e12, slots=4, kv_blocks=40,
    block_tokens=4, max_model_len=100,
)  # fmt: skip


class Play:
    """An engine on virtual time, and the outputs of each request."""

    def __init__(self, scripted: Scripted) -> None:
        self.engine = ScriptedEngine(scripted)
        self.tokens: dict[str, list[int]] = {}
        self.logprobs: dict[str, list[float]] = {}
        self.ends: dict[str, tuple[float, FinishReason]] = {}

    def add(self, key: str, length: int = 0, prompt: int = 4, done: int = 0, **more: Any) -> None:
        tokens = unpack_tokens(scripted_tokens("g", 0, 0, done))
        sampling = more.pop("sampling", Sampling())
        self.engine.add(EngineRequest(key, "g", 0, [1] * prompt, tokens, 1000, sampling, true_length=length, **more))

    def collect(self) -> None:
        self.engine.check()
        for progress in self.engine.collect():
            assert progress.key not in self.ends
            self.tokens.setdefault(progress.key, []).extend(unpack_tokens(progress.tokens))
            self.logprobs.setdefault(progress.key, []).extend(unpack_logprobs(progress.logprobs))
            if progress.finish:
                self.ends[progress.key] = (round(asyncio.get_running_loop().time(), 2), progress.finish)

    async def until(self, seconds: float, every: float = 0.25) -> None:
        """Collects outputs at intervals, shortly after whole seconds, because prompts take a short time."""
        if asyncio.get_running_loop().time() == 0:
            await asyncio.sleep(1e-3)
        while asyncio.get_running_loop().time() < seconds:
            await asyncio.sleep(every)
            self.collect()


def played(scripted: Scripted, script: Callable[[Play], Coroutine[Any, Any, None]]) -> Play:
    """Runs a script against a started engine."""

    async def main() -> Play:
        play = Play(scripted)
        play.engine.start(lambda: None)
        await script(play)
        play.collect()
        return play

    return run_virtual(main())


def test_a_response_has_its_given_length_and_its_own_tokens() -> None:
    async def script(play: Play) -> None:
        play.add("a", 10)
        await play.until(12)

    play = played(STEPS, script)
    assert play.ends == {"a": (10.0, FinishReason.STOP)}
    assert play.tokens["a"] == unpack_tokens(scripted_tokens("g", 0, 0, 10))
    assert play.logprobs["a"] == unpack_logprobs(scripted_logprobs("g", 0, 0, 10))
    assert len(set(play.tokens["a"])) == 10
    assert max(play.logprobs["a"]) < 0


def test_a_moved_response_has_the_same_tokens() -> None:
    async def script(play: Play) -> None:
        play.add("whole", 20)
        play.add("part", 20)
        await play.until(7.5)
        play.engine.abort("part")
        play.engine.abort("nobody")
        play.collect()
        play.add("rest", 20, done=7)
        await play.until(30)

    play = played(STEPS, script)
    assert play.ends["part"] == (7.5, FinishReason.ABORTED)
    assert len(play.tokens["part"]) == 7
    assert play.tokens["part"] + play.tokens["rest"] == play.tokens["whole"]


def test_steps_take_the_time_of_the_step_time_model() -> None:
    scripted = Scripted(step_seconds=0.5, step_seconds_per_request=0.25, prefill_tokens_per_second=10, slots=4)

    async def script(play: Play) -> None:
        play.add("a", 4, prompt=20)
        play.add("b", 2, prompt=10)
        await play.until(10, every=0.125)

    # Two steps of two requests, the first with 30 tokens of prompt; then two of one.
    play = played(scripted, script)
    assert play.ends == {"b": (3 + 2 * 1.0, FinishReason.STOP), "a": (3 + 2 * 1.0 + 2 * 0.75, FinishReason.STOP)}


def test_a_returning_response_finds_its_tokens_cached() -> None:
    async def script(play: Play) -> None:
        play.add("a", 50, prompt=8)
        await play.until(21)
        play.engine.abort("a")
        play.add("b", 50, prompt=8, done=21)
        await play.until(60)

    assert played(STEPS, script).engine.metrics()["context_cached"] == 28


def test_the_context_of_a_moved_response_is_fetched_from_the_pool() -> None:
    """Seven full blocks are fetched, 28 tokens of 10 bytes at 70 bytes/s; 3 tokens are computed at 2/s."""

    async def script(play: Play) -> None:
        play.add("b", 25, prompt=8, done=23)
        await play.until(20)

    slow = {"prefill_tokens_per_second": 2, "pool": ScriptedPool(bytes_per_token=10, bytes_per_second=70)}
    play = played(STEPS.model_copy(update=slow), script)
    assert play.ends == {"b": (4 + 1.5 + 2, FinishReason.STOP)}
    found = ContextCounts.of_heartbeat(play.engine.metrics())
    assert found == ContextCounts(
        computed=3, recomputed=3, compute_seconds=1.5, fetched=28, fetched_bytes=280, fetch_seconds=4.0
    )
    assert play.engine.profile.contexts_move


def test_without_a_pool_the_context_of_a_moved_response_is_computed() -> None:
    async def script(play: Play) -> None:
        play.add("b", 25, prompt=8, done=23)
        await play.until(20)

    play = played(STEPS.model_copy(update={"prefill_tokens_per_second": 2}), script)
    assert play.ends == {"b": (15.5 + 2, FinishReason.STOP)}
    found = ContextCounts.of_heartbeat(play.engine.metrics())
    assert found == ContextCounts(computed=31, recomputed=31, compute_seconds=15.5)
    assert not play.engine.profile.contexts_move


def test_a_new_prompt_is_computed_also_with_a_pool() -> None:
    async def script(play: Play) -> None:
        play.add("a", 2, prompt=9)
        await play.until(10)

    pool = ScriptedPool(bytes_per_token=1, bytes_per_second=1e15)
    play = played(STEPS.model_copy(update={"pool": pool}), script)
    assert ContextCounts.of_heartbeat(play.engine.metrics()) == ContextCounts(computed=9)


@pytest.mark.parametrize("every", [0.25, 50.0])
def test_a_lack_of_blocks_preempts_the_newest_request(every: float) -> None:
    """The interval of reads does not change the engine's behaviour."""

    async def script(play: Play) -> None:
        for key in "abc":
            play.add(key, 60)
        await play.until(300, every)

    play = played(STEPS, script)
    metrics = play.engine.metrics()
    assert (metrics["preemptions"], metrics["tokens"], metrics["kv_used"]) == (1, 180, 0)
    assert all(play.tokens[key] == unpack_tokens(scripted_tokens("g", 0, 0, 60)) for key in "abc")


def test_requests_that_fit_to_the_last_block_are_never_preempted() -> None:
    async def script(play: Play) -> None:
        for key in "ab":
            play.add(key, 77)
        await play.until(300, 60)

    assert played(STEPS, script).engine.metrics()["preemptions"] == 0


def test_the_number_of_running_requests_is_limited_by_slots() -> None:
    async def script(play: Play) -> None:
        for key in "abcde":
            play.add(key, 5)
        await play.until(3)
        assert (play.engine.metrics()["running"], play.engine.metrics()["waiting"]) == (4, 1)
        await play.until(20)

    assert played(STEPS, script).ends["e"] == (10.0, FinishReason.STOP)


def test_the_finish_reason_follows_vllms_rules() -> None:
    async def script(play: Play) -> None:
        play.add("context", 500)
        play.add("forced", 9, sampling=Sampling(force_lengths=True))
        play.add("over", 9, done=9)
        play.engine.add(EngineRequest("length", "g", 0, [1], [], 6, Sampling(ignore_eos=True, logprobs="none")))
        await play.until(120)

    play = played(STEPS, script)
    assert {key: reason for key, (_, reason) in play.ends.items()} == {
        "context": FinishReason.CONTEXT_FULL, "forced": FinishReason.LENGTH, "over": FinishReason.STOP,
        "length": FinishReason.LENGTH,
    }  # fmt: skip
    assert {key: len(tokens) for key, tokens in play.tokens.items()} == {
        "context": 96, "forced": 9, "over": 0, "length": 6
    }  # fmt: skip
    assert play.logprobs["length"] == []


def test_a_request_larger_than_the_cache_fails() -> None:
    async def script(play: Play) -> None:
        play.add("a", 50, prompt=90)
        await asyncio.sleep(1)

    with pytest.raises(EngineError, match="8 blocks"):
        played(STEPS.model_copy(update={"kv_blocks": 8}), script)


def test_the_worker_is_woken_only_at_the_end_of_a_request() -> None:
    async def main() -> list[float]:
        loop, woken = asyncio.get_running_loop(), list[float]()
        engine = ScriptedEngine(STEPS)
        engine.start(lambda: woken.append(loop.time()))
        engine.add(EngineRequest("a", "g", 0, [1], [], 100, Sampling(), true_length=30))
        await asyncio.sleep(50)
        await engine.close()
        return woken

    assert run_virtual(main()) == pytest.approx([30.0])


def test_a_held_engine_makes_no_step_until_its_release() -> None:
    async def main() -> list[tuple[float, int]]:
        loop, seen = asyncio.get_running_loop(), list[tuple[float, int]]()
        engine = ScriptedEngine(STEPS, most_steps=3)
        engine.start(lambda: None)
        engine.add(EngineRequest("a", "g", 0, [1], [], 100, Sampling(), true_length=10))
        for seconds in (2.5, 20.0, 30.0):
            await asyncio.sleep(seconds)
            seen += [(loop.time(), len(output.tokens) // 4) for output in engine.collect()]
        engine.release()
        await asyncio.sleep(4.5)
        seen += [(loop.time(), len(output.tokens) // 4) for output in engine.collect()]
        await engine.close()
        return seen

    assert run_virtual(main()) == [(2.5, 2), (22.5, 1), (57.0, 5)]


def test_drawn_lengths_have_a_heavy_tail_and_are_alike_within_groups() -> None:
    groups = [[drawn_length(f"g{group}", index, 8192) for index in range(8)] for group in range(300)]
    lengths = sorted(length for group in groups for length in group)
    assert lengths[-len(lengths) // 100] > 4 * statistics.median(lengths)
    within = statistics.mean(statistics.pstdev(group) for group in groups)
    assert within < 0.6 * statistics.pstdev(lengths)


def test_a_scored_response_is_the_end_of_its_prompt() -> None:
    async def script(play: Play) -> None:
        play.add("a", prompt=6, sampling=Sampling(score_from=2))
        await play.until(3)

    play = played(STEPS, script)
    assert play.ends == {"a": (1.0, FinishReason.LENGTH)}
    assert play.tokens["a"] == [1] * 4
    assert play.logprobs["a"] == unpack_logprobs(scripted_logprobs("", 0, 2, 6))
