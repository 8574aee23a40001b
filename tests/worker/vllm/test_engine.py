"""The real engine on a small random model in fp32, whose token probabilities are well separated."""

# pyright: reportPrivateUsage=false

import asyncio
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from openseer_core.errors import EngineError
from openseer_core.manifest.job import Parallelism, Sampling
from openseer_core.queue.kv_blocks import whole
from openseer_core.queue.states import FinishReason
from openseer_text.reading import Decode, Reader
from openseer_text.stop_strings import visible_text
from openseer_worker.engine import EngineRequest
from openseer_worker.engine_requests import derive_seed
from openseer_worker.vllm.engine import VllmEngine
from openseer_worker.vllm.environment import is_cpu_build
from tests.worker.player import BLOCKS, CONTEXT, GREEDY, PROMPT, Player, model, sampled_logprobs, work

pytestmark = [
    pytest.mark.engine,
    # Import warnings of vLLM, torch and their compiled modules.
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(not is_cpu_build(), reason="needs the CPU build of vLLM"),
]


class Bench:
    """The one engine of this process, rebuilt for other settings, because two engines would share state."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sampling: Sampling | None = None
        self._engine: VllmEngine | None = None
        self._player: Player | None = None

    def engine(self, sampling: Sampling | None = None) -> VllmEngine:
        """A new engine, not yet started."""
        self.clear()
        self._engine = VllmEngine(model(self._folder), Parallelism(), sampling, cache_salt="job/initial")
        return self._engine

    def player(self, sampling: Sampling) -> Player:
        if self._player is None or self._sampling != sampling:
            self._player, self._sampling = Player(self.engine(sampling)), sampling
        return self._player

    def clear(self) -> None:
        if self._engine is not None:
            asyncio.run(self._engine.close())
        self._engine = self._player = None


@pytest.fixture(scope="module")
def bench(folder: Path) -> Iterator[Bench]:
    bench = Bench(folder)
    yield bench
    bench.clear()


@pytest.fixture
def player(bench: Bench) -> Player:
    return bench.player(Sampling())


@pytest.fixture(scope="module")
def text_of(folder: Path) -> Decode:
    from tokenizers import Tokenizer  # noqa: PLC0415 - heavy

    core = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def decode(tokens: Sequence[int]) -> str:
        return core.decode(list(tokens))

    return decode


@pytest.fixture(scope="module")
def logits_of(folder: Path) -> Any:
    """The model's logits for each token of a response, computed without vLLM."""
    import torch  # noqa: PLC0415 - heavy
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - heavy

    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def logits(tokens: list[int]) -> Any:
        with torch.no_grad():
            return reference(torch.tensor([PROMPT + tokens])).logits[0, len(PROMPT) - 1 : -1]

    return logits


def test_the_profile_is_the_engines_own(player: Player) -> None:
    profile = player.engine.profile
    assert (profile.blocks, profile.layout, profile.slots, profile.context_tokens) == (BLOCKS, whole(32), 8, CONTEXT)
    assert (profile.device, profile.engine.split()[0], profile.engine.split()[-1]) == ("cpu", "vllm", "cpu")
    pool = player.engine._core.engine_core.scheduler.kv_cache_manager.block_pool
    assert pool.get_num_free_blocks() == profile.blocks


@pytest.mark.parametrize("split", [1, 16, 31, 64])
def test_a_greedy_response_continues_from_any_token_as_if_unmoved(player: Player, split: int) -> None:
    whole = player.one(GREEDY)
    rest = player.one(GREEDY, tokens=whole.tokens[:split])
    assert whole.finish == rest.finish == FinishReason.LENGTH
    assert len(whole.tokens) == len(whole.logprobs) == 96
    assert whole.tokens[split:] == rest.tokens
    assert rest.logprobs == pytest.approx(whole.logprobs[split:], abs=1e-4)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.7, ignore_eos=True),
        Sampling(temperature=1.6, top_p=0.8, ignore_eos=True),
        Sampling(temperature=0.9, top_k=7, ignore_eos=True),
        Sampling(temperature=1.2, top_k=20, top_p=0.9, ignore_eos=True),
    ],
)
def test_logprobs_are_those_of_the_sampled_distribution(player: Player, logits_of: Any, sampling: Sampling) -> None:
    first = player.one(sampling, 40, seed=3)
    rest = player.one(sampling, 80, first.tokens, seed=4)
    tokens = first.tokens + rest.tokens
    assert len(tokens) == 80
    # fp32 on both sides; the kernels add up in different orders.
    expected = sampled_logprobs(logits_of(tokens), sampling, tokens)
    assert first.logprobs + rest.logprobs == pytest.approx(expected, abs=2e-4)


def test_no_logprobs_are_recorded_unless_requested(player: Player) -> None:
    response = player.one(Sampling(logprobs="none", ignore_eos=True), 20)
    assert (len(response.tokens), response.logprobs) == (20, [])


def test_an_abort_returns_the_partial_tokens_once(player: Player) -> None:
    whole = player.one(GREEDY, 200)
    long = work(GREEDY, 200)
    response = player.add(long)
    while len(response.tokens) < 5:
        player.poll()
        time.sleep(0.001)
    player.engine.abort(long.key)
    player.engine.abort(long.key)
    player.engine.abort("nobody")
    player.one(GREEDY, 50)
    assert (response.finish, response.finishes) == (FinishReason.ABORTED, 1)
    assert response.tokens == whole.tokens[: len(response.tokens)]
    assert len(response.logprobs) == len(response.tokens) < 200


def test_a_request_aborted_before_its_first_step_ends(player: Player) -> None:
    one = work(GREEDY)
    response = player.add(one)
    player.engine.abort(one.key)
    player.one(GREEDY, 5)
    assert (response.finish, response.finishes) == (FinishReason.ABORTED, 1)


def test_the_stop_token_is_part_of_the_response(player: Player) -> None:
    whole = player.one(GREEDY)
    stop = whole.tokens[20]
    response = player.one(Sampling(temperature=0, ignore_eos=True, stop_token_ids=(stop,)))
    length = whole.tokens.index(stop) + 1
    assert response.tokens == whole.tokens[:length]
    assert len(response.logprobs) == length
    assert (response.finish, response.stop_reason) == (FinishReason.STOP, str(stop))


def test_the_models_own_end_stops_a_response(player: Player) -> None:
    responses = player.run(*(work(Sampling(temperature=2.0), 230, seed=seed) for seed in range(3)))
    stopped = [response for response in responses if response.finish == FinishReason.STOP]
    assert stopped
    assert all(response.tokens[-1] == 2 and response.stop_reason == "2" for response in stopped)


def test_min_tokens_counts_the_tokens_before_a_move(player: Player) -> None:
    whole = player.one(GREEDY)
    sampling = Sampling(temperature=0, ignore_eos=True, min_tokens=30, stop_token_ids=tuple(range(4, 97)))
    assert len(player.one(sampling).tokens) == 30 + 1
    assert len(player.one(sampling, tokens=whole.tokens[:28]).tokens) == 2 + 1
    assert len(player.one(sampling, tokens=whole.tokens[:40]).tokens) == 1


@pytest.mark.parametrize("moved", [False, True])
def test_a_stop_string_ends_a_response_at_the_token_that_completes_it(
    player: Player, text_of: Decode, moved: bool
) -> None:
    whole = player.one(GREEDY)
    stop = text_of(whole.tokens)[18:22]
    length = next(count for count in range(97) if stop in text_of(whole.tokens[:count]))
    earlier = whole.tokens[: length - 2] if moved else []
    response = player.one(Sampling(temperature=0, ignore_eos=True, stop=("never", stop)), tokens=earlier)
    assert earlier + response.tokens == whole.tokens[:length]
    assert len(response.logprobs) == len(response.tokens)
    assert (response.finish, response.stop_reason) == (FinishReason.STOP, stop)
    visible = visible_text(Reader(text_of), earlier + response.tokens, response.stop_reason, (stop,))
    assert visible == text_of(whole.tokens)[: text_of(whole.tokens).index(stop)]


@pytest.mark.parametrize("before", [False, True])
def test_a_stop_string_with_the_end_token_stops_at_it(player: Player, before: bool) -> None:
    free, end = Sampling(temperature=2.0, ignore_eos=True), 2
    drawn = ((seed, player.one(free, 230, seed=seed).tokens) for seed in range(20))
    # The first letter is token 4; lower ids are special tokens.
    seed, whole, place = next(
        (seed, whole, place)
        for seed, whole in drawn
        if end in whole and (place := whole.index(end)) and whole[place - 1] >= 4
    )
    stop = (chr(ord(" ") + whole[place - 1] - 4) if before else "") + "<eos>"
    response = player.one(free.model_copy(update={"stop": ("never", stop)}), 230, seed=seed)
    assert response.tokens == whole[: place + 1]
    assert (response.finish, response.stop_reason) == (FinishReason.STOP, stop)


def test_context_full_is_distinct_from_length(player: Player) -> None:
    room = CONTEXT - len(PROMPT)
    full, exact, none_left, done = player.run(
        work(GREEDY, room + 1),
        work(GREEDY, room),
        work(GREEDY, room + 9, [7] * room),
        work(GREEDY, 20, [7] * 20),
    )
    assert (full.finish, len(full.tokens)) == (FinishReason.CONTEXT_FULL, room)
    assert (exact.finish, len(exact.tokens)) == (FinishReason.LENGTH, room)
    assert (none_left.finish, none_left.tokens) == (FinishReason.CONTEXT_FULL, [])
    assert (done.finish, done.tokens) == (FinishReason.LENGTH, [])


def test_a_forced_length_is_exact_despite_stop_conditions(player: Player) -> None:
    sampling = Sampling(force_lengths=True, stop=("e",), stop_token_ids=tuple(range(97)))
    response = player.one(sampling, 40, [9] * 10, true_length=60)
    assert (len(response.tokens), response.finish) == (50, FinishReason.LENGTH)


def test_samples_repeat_only_with_a_seed(player: Player) -> None:
    sampling = Sampling(temperature=2.0, ignore_eos=True)
    free, again = player.run(work(sampling, 30), work(sampling, 30))
    assert free.tokens != again.tokens
    seed = derive_seed(1, "g", 0, 0)
    seeded, repeated = player.run(work(sampling, 30, seed=seed), work(sampling, 30, seed=seed))
    assert seeded.tokens == repeated.tokens
    moved = player.one(sampling, 60, seeded.tokens, seed=derive_seed(1, "g", 0, 30))
    assert moved.tokens != seeded.tokens


def test_worker_and_engine_count_the_same_blocks(player: Player) -> None:
    """Three responses fill the cache to the last block; a fourth is one too many."""
    before = player.engine.metrics()["preemptions"]
    player.run(*(work(Sampling(ignore_eos=True), CONTEXT) for _ in range(3)))
    assert player.engine.metrics()["preemptions"] == before
    crowd = player.run(*(work(Sampling(ignore_eos=True), CONTEXT) for _ in range(5)))
    assert {len(response.tokens) for response in crowd} == {CONTEXT - len(PROMPT)}
    assert int(player.engine.metrics()["preemptions"]) > int(before)


def test_given_tokens_are_scored_as_when_they_were_sampled(player: Player, logits_of: Any) -> None:
    sampled = player.one(Sampling(ignore_eos=True), 60)
    prompt, scoring = PROMPT + sampled.tokens, Sampling(score_from=len(PROMPT))
    request = EngineRequest("scored", "g", 0, prompt, [], 1024, scoring)
    again = EngineRequest("scored-again", "g", 0, prompt, [], 1024, scoring)
    scored, repeated, _ = player.run(request, again, work(GREEDY, 5))
    assert (scored.tokens, scored.finish) == (sampled.tokens, FinishReason.LENGTH)
    assert scored.logprobs == pytest.approx(sampled.logprobs, abs=1e-3)
    assert repeated.logprobs == pytest.approx(scored.logprobs, abs=1e-3)
    expected = logits_of(scored.tokens).log_softmax(-1)[range(60), scored.tokens].tolist()
    assert scored.logprobs == pytest.approx(expected, abs=1e-3)
    moved = player.run(EngineRequest("moved", "g", 0, prompt, sampled.tokens, 1024, scoring))[0]
    assert (moved.tokens, moved.finish) == ([], FinishReason.LENGTH)


def test_likeliest_tokens_of_samples_and_given_tokens_are_the_models(player: Player, logits_of: Any) -> None:
    """Beside requests with other numbers of likeliest tokens or none."""
    sampling, wide = Sampling(ignore_eos=True, top_logprobs=3), Sampling(ignore_eos=True, top_logprobs=7)
    sampled, more, none = player.run(work(sampling, 30), work(wide, 10), work(Sampling(ignore_eos=True), 10))
    scoring = Sampling(score_from=len(PROMPT), top_logprobs=3)
    scored = player.run(EngineRequest("top-scored", "g", 0, PROMPT + sampled.tokens, [], 1024, scoring))[0]
    logits = logits_of(sampled.tokens).log_softmax(-1)
    for response in (sampled, scored):
        for top, found in zip(response.likeliest, logits, strict=True):
            values, ids = found.topk(3)
            assert [score for _, score in top] == pytest.approx(values.tolist(), abs=1e-3)
            gaps = values[:-1] - values[1:]
            assert [token for token, _ in top] == ids.tolist() or gaps.min() < 1e-3
    assert {len(top) for top in more.likeliest} == {7}
    assert none.likeliest == []


def test_tokens_removed_by_top_k_are_not_among_the_likeliest(player: Player) -> None:
    cut = player.one(Sampling(ignore_eos=True, top_k=2, top_logprobs=4), 12)
    assert {len(top) for top in cut.likeliest} == {2}
    assert all(token in dict(top) for token, top in zip(cut.tokens, cut.likeliest, strict=True))


def test_a_scored_prompt_may_fill_the_context_but_for_one_token(player: Player, logits_of: Any) -> None:
    generated, scoring = int(player.engine.metrics()["tokens"]), Sampling(score_from=len(PROMPT))
    prompt = PROMPT + [(5 * place) % 80 + 4 for place in range(CONTEXT - 1 - len(PROMPT))]
    fits = EngineRequest("fits", "g", 0, prompt, [], scoring.most_added, scoring)
    full = EngineRequest("full", "g", 0, [*prompt, 5], [], scoring.most_added, scoring)
    scored, refused = player.run(fits, full)
    given = prompt[len(PROMPT) :]
    expected = logits_of(given).log_softmax(-1)[range(len(given)), given].tolist()
    assert scored.tokens == given
    assert scored.logprobs == pytest.approx(expected, abs=1e-3)
    assert (refused.tokens, refused.finish) == ([], FinishReason.INFRA_FAILED)
    assert "no room" in refused.stop_reason
    assert int(player.engine.metrics()["tokens"]) == generated


def test_metrics_report_running_requests(player: Player) -> None:
    steps = int(player.engine.metrics()["steps"])
    responses = [player.add(work(GREEDY, 200)) for _ in range(2)]
    seen: list[dict[str, Any]] = []
    while not all(response.finish for response in responses):
        seen.append(player.engine.metrics())
        player.poll()
        time.sleep(0.005)
    assert max(metrics["running"] for metrics in seen) == 2
    assert 0 < max(metrics["kv_used"] for metrics in seen) <= 2 * 8 / BLOCKS
    while player.engine.metrics()["running"]:  # an output is available a moment before its request has left the engine
        time.sleep(0.005)
    after = player.engine.metrics()
    assert int(after["steps"]) >= steps + 200
    assert (after["running"], after["waiting"], after["kv_used"]) == (0, 0, 0.0)
    assert int(after["context_cached"]) > 0


def test_a_request_refused_by_vllm_fails_alone(player: Player) -> None:
    strange = EngineRequest("strange", "g", 0, [10**6], [], 5, GREEDY)
    refused, fine = player.run(strange, work(GREEDY, 5))
    assert (refused.finish, fine.finish) == (FinishReason.INFRA_FAILED, FinishReason.LENGTH)
    assert "1000000" in refused.stop_reason


def test_raw_logprobs_are_the_models_own(bench: Bench, logits_of: Any) -> None:
    sampling = Sampling(temperature=0.7, top_k=5, logprobs="raw", ignore_eos=True)
    raw = bench.player(sampling)
    response = raw.one(sampling, 60)
    expected = logits_of(response.tokens).log_softmax(-1)[range(60), response.tokens].tolist()
    assert response.logprobs == pytest.approx(expected, abs=2e-4)
    refused = raw.one(Sampling(logprobs="sampled"), 10)
    assert (refused.finish, refused.tokens) == (FinishReason.INFRA_FAILED, [])
    assert "log-probabilities" in refused.stop_reason


def test_a_broken_engine_raises_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = bench.engine()
    woken: list[bool] = []

    def broken() -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine._core, "get_output", broken)
    engine.start(lambda: woken.append(True))
    engine.check()
    engine.add(work(GREEDY))
    deadline = time.monotonic() + 60
    while not woken and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(EngineError, match="out of memory"):
        engine.check()
