"""The real engine with drafts generates the same greedy tokens as without."""

# pyright: reportPrivateUsage=false

import asyncio
import inspect
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openseer_core.manifest.job import Parallelism, Sampling
from openseer_core.queue.states import FinishReason
from openseer_core.tokens import pack_tokens
from openseer_worker.engine import DraftTokens, EngineRequest
from openseer_worker.vllm.drafting.calls import DraftCalls
from openseer_worker.vllm.drafting.prompt_scores import score_in_pieces
from openseer_worker.vllm.engine import VllmEngine
from openseer_worker.vllm.environment import check_version, is_cpu_build
from tests.worker.drafting import MOST, NAMES, PROMPTS, ROOM, VOCABULARY, drafting_player, feed, metric, metrics, of
from tests.worker.player import GREEDY, Player, Response, model

pytestmark = [
    pytest.mark.engine,
    # Import warnings of vLLM, torch and their compiled modules.
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(not is_cpu_build(), reason="needs the CPU build of vLLM"),
]

STEP_TOKENS = 48


@pytest.fixture(scope="module")
def plain(folder: Path) -> list[Response]:
    """Greedy responses to all prompts, up to the end of the context, from an engine that does not draft."""
    engine = VllmEngine(model(folder), Parallelism(), Sampling(), cache_salt="plain")
    try:
        assert not engine.drafts
        assert engine.metrics()["drafts"] == "off: it was not enabled"
        player = Player(engine)
        return [player.run(of(number, GREEDY))[0] for number in range(len(PROMPTS))]
    finally:
        asyncio.run(engine.close())


@pytest.fixture(scope="module")
def player(folder: Path, plain: list[Response]) -> Iterator[Player]:
    """An engine that drafts, built after the other one has ended: two would share state.

    Its steps are so small that prompts are divided, run beside others' drafts, and not all drafts fit.
    """
    assert plain
    arguments = model(folder, max_num_batched_tokens=STEP_TOKENS).engine_args
    with drafting_player(folder, engine_args=arguments) as player:
        yield player


def proposer(player: Player) -> Any:
    return player.engine._core.engine_core.model_executor.driver_worker.worker.model_runner.drafter


def expect(response: Response, whole: Response, begin: int = 0) -> None:
    """Asserts that a response equals the other one from `start` on, log-probabilities included."""
    end = begin + len(response.tokens)
    assert response.tokens == whole.tokens[begin:end]
    assert response.logprobs == pytest.approx(whole.logprobs[begin:end], abs=1e-4)


def test_the_installed_vllm_has_the_parts_that_drafting_uses(player: Player) -> None:
    from vllm.v1.sample import rejection_sampler  # noqa: PLC0415 - heavy
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner  # noqa: PLC0415 - heavy

    check_version()
    for method, parameters in {
        "_calc_spec_decode_metadata": ["self", "num_draft_tokens", "cu_num_scheduled_tokens"],
        "_sample": ["self", "logits", "spec_decode_metadata"],
        "take_draft_token_ids": ["self"],
        "_get_prompt_logprobs_dict": ["self", "hidden_states", "num_scheduled_tokens"],
    }.items():
        assert list(inspect.signature(getattr(GPUModelRunner, method)).parameters) == parameters, method
    expand = inspect.signature(rejection_sampler.expand_batch_to_tokens)
    assert list(expand.parameters) == ["x", "cu_num_tokens", "num_tokens", "replace_from", "replace_to"]
    runner = proposer(player)._runner
    assert {"req_ids", "num_tokens_no_spec", "token_ids_cpu"} <= set(dir(runner.input_batch))
    for name in ("requests", "effective_drafter_max_model_len", "device", "num_prompt_logprobs"):
        assert hasattr(runner, name), name
    assert player.engine._core.engine_core.scheduler.dynamic_sd_lookup, "new requests are padded with empty drafts"


def test_a_response_drafted_from_itself_is_the_same_to_the_contexts_end(player: Player, plain: list[Response]) -> None:
    for number, whole in enumerate(plain):
        response = player.run(of(number, GREEDY))[0]
        assert (len(response.tokens), response.finish) == (ROOM, FinishReason.LENGTH)
        expect(response, whole)


def test_drafts_of_siblings_save_steps_and_change_no_token(player: Player, plain: list[Response]) -> None:
    group = NAMES.new()
    feed(player, tokens=[DraftTokens(group, 0, 0, pack_tokens(plain[0].tokens))], importance={"nobody": 2.0})
    steps, accepted = int(player.engine.metrics()["steps"]), metric(player, "accepted_siblings")
    responses = player.run(*(of(0, GREEDY, group=group, index=1 + index) for index in range(3)))
    for response in responses:
        assert len(response.tokens) == ROOM
        expect(response, plain[0])
    assert metric(player, "accepted_siblings") > accepted + ROOM
    assert int(player.engine.metrics()["steps"]) - steps < ROOM / 2
    assert player.engine.metrics()["drafts"] == "on"


def test_a_batch_of_long_short_wrong_and_no_drafts_changes_nothing(player: Player, plain: list[Response]) -> None:
    good, half, wrong = NAMES.new(), NAMES.new(), NAMES.new()
    mixed = [token if position % 5 else (token + 1) % VOCABULARY for position, token in enumerate(plain[1].tokens)]
    tokens = [
        DraftTokens(good, 0, 0, pack_tokens(plain[0].tokens)),
        DraftTokens(half, 0, 0, pack_tokens(mixed)),
        DraftTokens(wrong, 0, 0, pack_tokens(plain[2].tokens[::-1])),
        # A response without its first tokens.
        DraftTokens(good, 5, 90, pack_tokens(plain[3].tokens)),
    ]
    feed(player, tokens=tokens)
    groups = [good, half, wrong, "", good, "", "", half]
    works = [of(number, GREEDY, group=group, index=1 + number) for number, group in enumerate(groups)]
    for number, response in enumerate(player.run(*works)):
        assert len(response.tokens) == ROOM
        expect(response, plain[number])


def test_drafts_at_random_change_nothing(player: Player, plain: list[Response]) -> None:
    calls = DraftCalls(player.engine._core)
    asyncio.run(player.engine._call(lambda: calls.probe(4, [0, MOST, 1, 3], 20)))
    responses = player.run(*(of(number, GREEDY) for number in range(4)))
    assert asyncio.run(player.engine._call(calls.end_probe))
    for number, response in enumerate(responses):
        assert len(response.tokens) == ROOM
        expect(response, plain[number])


@pytest.mark.parametrize("split", [1, 17, 64, 150])
def test_a_response_continues_from_any_token_with_its_groups_drafts(
    player: Player, plain: list[Response], split: int
) -> None:
    group = NAMES.new()
    feed(player, tokens=[DraftTokens(group, 1, 0, pack_tokens(plain[4].tokens[: split + 40]))])
    response = player.run(of(4, GREEDY, group=group, tokens=plain[4].tokens[:split]))[0]
    assert split + len(response.tokens) == ROOM
    expect(response, plain[4], split)


def test_an_aborted_response_continues_from_its_last_token(player: Player, plain: list[Response]) -> None:
    group = NAMES.new()
    first = of(5, GREEDY, group=group)
    begun = player.add(first)
    others = [player.add(of(number, GREEDY)) for number in (0, 1)]
    while len(begun.tokens) < 20:
        player.poll()
        time.sleep(0.001)
    player.engine.abort(first.key)
    while begun.finish is None:
        player.poll()
        time.sleep(0.001)
    rest = player.run(of(5, GREEDY, group=group, tokens=begun.tokens))[0]
    assert begun.tokens + rest.tokens == plain[5].tokens
    while not all(response.finish for response in others):
        player.poll()
    assert [response.tokens for response in others] == [plain[0].tokens, plain[1].tokens]


def test_preempted_responses_are_unchanged_after_their_return(player: Player, plain: list[Response]) -> None:
    before = int(player.engine.metrics()["preemptions"])
    group = NAMES.new()
    feed(player, tokens=[DraftTokens(group, 0, 0, pack_tokens(plain[6].tokens))])
    works = [of(6, GREEDY, group=group, index=1), *(of(number, GREEDY) for number in range(6))]
    for number, response in zip([6, *range(6)], player.run(*works), strict=True):
        expect(response, plain[number])
        assert len(response.tokens) == ROOM
    assert int(player.engine.metrics()["preemptions"]) > before


def test_drafts_take_no_block_beyond_the_responses_length(player: Player, plain: list[Response]) -> None:
    """Three responses fill the cache to the last block, with drafts too."""
    group = NAMES.new()
    feed(player, tokens=[DraftTokens(group, 0, 0, pack_tokens(plain[0].tokens))])
    before = int(player.engine.metrics()["preemptions"])
    player.run(*(of(0, GREEDY, group=group, index=1 + index) for index in range(3)))
    assert int(player.engine.metrics()["preemptions"]) == before


def test_every_end_condition_cuts_a_response_within_a_draft(player: Player, plain: list[Response]) -> None:
    whole = plain[7].tokens
    group = NAMES.new()
    feed(player, tokens=[DraftTokens(group, 0, 0, pack_tokens(whole))])
    stop = whole[40]
    length = whole.index(stop) + 1
    stopped = Sampling(temperature=0, ignore_eos=True, stop_token_ids=(stop,))
    kept_on = Sampling(temperature=0, ignore_eos=True, stop_token_ids=tuple(range(4, VOCABULARY)), min_tokens=50)
    short, least, exact = player.run(
        of(7, stopped, group=group, index=1), of(7, kept_on, group=group, index=2), of(7, GREEDY, 61, group, 3)
    )
    assert (short.tokens, short.finish, short.stop_reason) == (whole[:length], FinishReason.STOP, str(stop))
    assert len(short.logprobs) == length
    assert (len(least.tokens), least.finish) == (51, FinishReason.STOP)
    assert (exact.tokens, exact.finish) == (whole[:61], FinishReason.LENGTH)


def test_greedy_responses_among_sampled_ones_stay_the_same(player: Player, plain: list[Response]) -> None:
    group = NAMES.new()
    feed(player, tokens=[DraftTokens(group, 0, 0, pack_tokens(plain[0].tokens))])
    hot = Sampling(temperature=1.5, top_k=9, top_p=0.8, ignore_eos=True)
    greedy, _, other, *_ = player.run(
        of(0, GREEDY, group=group, index=1), of(0, hot, 200, group, 2), of(1, GREEDY), of(1, hot, 200)
    )
    expect(greedy, plain[0])
    expect(other, plain[1])


def test_without_logprobs_requested_drafts_return_none(player: Player, plain: list[Response]) -> None:
    group = NAMES.new()
    feed(player, tokens=[DraftTokens(group, 0, 0, pack_tokens(plain[0].tokens))])
    silent = Sampling(temperature=0, ignore_eos=True, logprobs="none")
    alone = player.run(of(0, silent, group=group, index=1))[0]
    assert (alone.tokens, alone.logprobs) == (plain[0].tokens, [])
    beside, other = player.run(of(0, silent, group=group, index=2), of(0, GREEDY, group=group, index=3))
    assert (beside.tokens, beside.logprobs) == (plain[0].tokens, [])
    expect(other, plain[0])


def test_within_drafts_the_likeliest_tokens_are_the_models(player: Player, plain: list[Response], folder: Path) -> None:
    """At a temperature, cut by a stop token, beside requests with other numbers of likeliest tokens or none."""
    import torch  # noqa: PLC0415 - heavy
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - heavy

    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    group, accepted = NAMES.new(), metric(player, "accepted_siblings")
    feed(player, tokens=[DraftTokens(group, 0, 0, pack_tokens(plain[0].tokens))])
    greedy = GREEDY.model_copy(update={"top_logprobs": 5})
    ended = greedy.model_copy(update={"stop_token_ids": (plain[0].tokens[30],), "top_logprobs": 2})
    warm = Sampling(temperature=0.1, ignore_eos=True, top_logprobs=20)
    works = [of(0, one, 100, group, 1 + place) for place, one in enumerate((greedy, ended, warm, GREEDY))]
    responses = player.run(*works)
    assert metric(player, "accepted_siblings") > accepted + 50
    for work, response in zip(works, responses, strict=True):
        top = work.sampling.top_logprobs
        assert len(response.likeliest) == (len(response.tokens) if top else 0)
        with torch.no_grad():
            ids = torch.tensor([work.prompt + response.tokens])
            logits = reference(ids).logits[0, len(work.prompt) - 1 : -1]
        values = (logits / (work.sampling.temperature or 1)).log_softmax(-1).topk(top).values
        for found, expected in zip(response.likeliest, values.tolist() if top else [], strict=True):
            assert [score for _, score in found] == pytest.approx(expected, abs=2e-2)
        for token, score, found in zip(response.tokens, response.logprobs, response.likeliest, strict=False):
            assert dict(found).get(token, score) == score


def test_steps_without_drafts_sample_as_an_engine_without_drafts(player: Player, plain: list[Response]) -> None:
    inside = proposer(player)
    verified: list[int] = []

    def count(_: Any, args: Any) -> None:
        verified.append(sum(args[0].num_draft_tokens))

    hook = inside._runner.rejection_sampler.register_forward_pre_hook(count)
    inside.switch_off("to compare")
    expect(player.run(of(0, GREEDY))[0], plain[0])
    assert verified == []
    inside.switch_off("")
    group = NAMES.new()
    feed(player, tokens=[DraftTokens(group, 0, 0, pack_tokens(plain[0].tokens))])
    expect(player.run(of(0, GREEDY, group=group, index=1))[0], plain[0])
    hook.remove()
    assert verified
    assert all(verified)


def test_min_tokens_holds_at_its_exact_token_within_a_draft(player: Player, plain: list[Response]) -> None:
    """vLLM would suppress a stop token after a draft that begins before the minimum length and ends after it."""
    group = NAMES.new()
    feed(player, tokens=[DraftTokens(group, 0, 0, pack_tokens(plain[0].tokens))])
    whole = plain[0].tokens
    end = whole.index(2)  # the model's own end token is suppressed, too
    positions = [position for position in range(8, end) if whole.index(whole[position]) == position]
    assert len(positions) > 8
    works = [
        of(
            0,
            Sampling(temperature=0, ignore_eos=True, stop_token_ids=(whole[position],), min_tokens=position),
            group=group,
            index=1 + at,
        )
        for at, position in enumerate(positions)
    ]
    for position, response in zip(positions, player.run(*works), strict=True):
        assert (response.tokens, response.finish) == (whole[: position + 1], FinishReason.STOP)


def test_a_released_group_can_be_fed_and_drafted_for_again(player: Player, plain: list[Response]) -> None:
    group = NAMES.new()
    for _ in range(2):
        feed(player, earlier=[(group, [pack_tokens(plain[2].tokens)])])
        expect(player.run(of(2, GREEDY, group=group))[0], plain[2])
        feed(player, released=[group])
        feed(player, tokens=[DraftTokens(group, 3, 0, pack_tokens(plain[3].tokens))])
        expect(player.run(of(2, GREEDY, group=group, index=1))[0], plain[2])


def test_min_p_is_refused_by_an_engine_that_drafts(player: Player) -> None:
    refused, fine = player.run(of(0, Sampling(min_p=0.1), 5), of(0, GREEDY, 5))
    assert (refused.finish, fine.finish) == (FinishReason.INFRA_FAILED, FinishReason.LENGTH)
    assert "minP" in refused.stop_reason


def test_a_canary_is_scored_beside_drafts(player: Player, plain: list[Response]) -> None:
    tokens = PROMPTS[3] + plain[3].tokens
    scores = asyncio.run(player.engine.score(tokens[:-1]))
    assert scores[len(PROMPTS[3]) - 1 :] == pytest.approx(plain[3].logprobs[:-1], abs=1e-4)
    expect(player.run(of(3, GREEDY))[0], plain[3])


@pytest.mark.parametrize("piece", [1, 7, 1024])
def test_given_tokens_are_scored_beside_drafts_and_never_drafted_for(
    player: Player, plain: list[Response], piece: int
) -> None:
    """Prompts are divided over steps and their logits into pieces, while other requests of the step verify drafts."""
    score_in_pieces(proposer(player)._runner, piece)
    given, names = PROMPTS[3] + plain[3].tokens[:-1], [NAMES.new() for _ in range(3)]
    feed(player, tokens=[DraftTokens(names[0], 1, 0, pack_tokens(plain[0].tokens))])
    scoring, drafted = Sampling(score_from=len(PROMPTS[3])), metric(player, "drafted_tokens")
    scored = [EngineRequest(name, name, 0, given, [], 1, scoring) for name in names[1:]]
    beside, *found = player.run(of(0, GREEDY, group=names[0]), *scored)
    expect(beside, plain[0])
    for response in found:
        assert response.finish is FinishReason.LENGTH
        assert response.tokens == plain[3].tokens[:-1]
        assert response.logprobs == pytest.approx(plain[3].logprobs[:-1], abs=1e-4)
    assert metric(player, "drafted_tokens") > drafted
    drafted = metric(player, "drafted_tokens")
    assert not player.run(EngineRequest(NAMES.new(), names[1], 0, given, [], 1, scoring))[0].stop_reason
    assert metric(player, "drafted_tokens") == drafted
    assert not set(names[1:]) & {request.group for request in proposer(player)._requests.values()}
    assert player.engine.metrics()["drafts"] == "on"


def test_metrics_of_drafts_are_consistent(player: Player) -> None:
    player.run(of(0, GREEDY, 20))
    found = {name: value for name, value in metrics(player).items() if isinstance(value, float | int)}
    origins = ("own", "siblings", "earlier", "prompt")
    assert found["drafted_tokens"] == sum(found[f"drafted_{origin}"] for origin in origins)
    assert found["accepted_tokens"] == sum(found[f"accepted_{origin}"] for origin in origins)
    rows = sum(found[f"steps_refs_{count}"] for count in (0, 1, 2, 4, 8, 16))
    tokens = sum(found[f"tokens_refs_{count}"] for count in (0, 1, 2, 4, 8, 16))
    assert rows < tokens <= found["tokens"]
    assert found["draft_seconds"] > 0


def test_a_failing_drafter_ends_only_drafting(player: Player, plain: list[Response]) -> None:
    """Runs last: the engine of these tests does not draft afterwards."""

    def step(*_: Any) -> None:
        raise RuntimeError("no memory")

    assert player.engine.metrics()["drafts"] == "on"
    inside = proposer(player)
    inside._drafter.step = step
    responses = player.run(of(1, GREEDY), of(2, GREEDY))
    for response, whole in zip(responses, plain[1:], strict=False):
        expect(response, whole)
    assert metrics(player)["drafts"] == "off: the drafter failed: no memory"
    assert not player.engine.drafts
