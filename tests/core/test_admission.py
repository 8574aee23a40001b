"""The requests that a model and its workers can run, and the messages for the others."""

from typing import Any

import pytest

from openseer_core.admission import ModelLimits, bad_token, limits_of_all, limits_of_manifest, misfit, overflow
from openseer_core.manifest.generation import Model, Sampling, Scripted

SAMPLING = Sampling(max_tokens=4)
LIMITS = ModelLimits(context_tokens=32, vocabulary=256, worker_tokens=64)


@pytest.mark.parametrize("prompt", [[0], [255], [1] * 31])
def test_a_prompt_that_leaves_room_for_one_token_fits(prompt: list[int]) -> None:
    assert misfit(prompt, SAMPLING, LIMITS) is None


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ([], "the prompt has no tokens; give at least one"),
        (
            [1] * 32,
            "the prompt's 32 tokens leave no room for a response in the model's context, allowed with the "
            "response: 32; shorten the prompt",
        ),
        (
            [1] * 33,
            "the prompt's 33 tokens do not fit the model's context, allowed with the response: 32; shorten the prompt",
        ),
        (
            [1, 2, 256],
            "prompt_token_ids[2]: found token 256, which is not in the model's vocabulary, allowed: 0 to 255",
        ),
        (
            [1, -1],
            "prompt_token_ids[1]: found token -1, which is not in the model's vocabulary, allowed: 0 to 255",
        ),
    ],
)
def test_a_prompt_that_cannot_run_is_refused_with_the_reason(prompt: list[int], told: str) -> None:
    assert misfit(prompt, SAMPLING, LIMITS) == told


def test_the_smaller_of_context_and_kv_cache_decides_and_is_named() -> None:
    small = ModelLimits(context_tokens=32_768, worker_tokens=128)
    assert misfit([1] * 127, SAMPLING, small) is None
    assert "do not fit a worker's KV cache, allowed with the response: 128" in (
        misfit([1] * 400, SAMPLING, small) or ""
    )


def test_a_length_is_checked_only_where_it_is_forced() -> None:
    forced = Sampling(max_tokens=64, force_lengths=True)
    assert misfit([1] * 30, Sampling(max_tokens=64), LIMITS, [1, 3]) is None
    assert misfit([1] * 30, forced, LIMITS, [1, 2]) is None
    assert "30 tokens and the response's 3 do not fit" in (misfit([1] * 30, forced, LIMITS, [3, 1]) or "")


def test_a_stop_token_outside_the_vocabulary_is_a_misfit() -> None:
    stops = Sampling(stop_token_ids=(7, 300))
    assert (misfit([1], stops, LIMITS) or "").startswith("stop_token_ids[1]: found token 300,")


def test_unknown_limits_refuse_only_tokens_that_no_model_has() -> None:
    unknown = ModelLimits()
    assert misfit([2**31 - 1] * 10_000, SAMPLING, unknown) is None
    assert overflow(10**6, 10**6, unknown, room=1) is None
    assert (bad_token("token_ids", [3, -2], unknown) or "").endswith("allowed: 0 to 2147483647")


def test_a_full_context_has_no_room_for_another_token() -> None:
    assert overflow(10, 22, LIMITS) is None
    assert "10 tokens and the response's 22 leave no room" in (overflow(10, 22, LIMITS, room=1) or "")


def test_a_request_has_to_fit_the_largest_worker() -> None:
    workers = [ModelLimits(640, 256, 64), ModelLimits(640, 256, 800), ModelLimits(), ModelLimits(640, 256, 48)]
    assert limits_of_all(workers) == ModelLimits(640, 256, 800)
    assert limits_of_all([]) == ModelLimits()


def test_known_limits_come_before_computed_ones() -> None:
    assert ModelLimits(48, None, 640).else_by(ModelLimits(64, 256)) == ModelLimits(48, 256, 640)


def test_the_scripted_engine_has_the_limits_of_its_settings() -> None:
    settings = Scripted(kv_blocks=8, block_tokens=16, max_model_len=1024)
    limits = limits_of_manifest(Model(path="none", engine="scripted", scripted=settings))
    assert (limits.context_tokens, limits.worker_tokens, limits.request_tokens) == (1024, 128, 128)
    assert limits.vocabulary == 2**18


@pytest.mark.parametrize(("stated", "known"), [(4096, 4096), (-1, None), ("auto", None), ("32k", None), (None, None)])
def test_a_manifest_limits_vllms_context_only_by_a_number(stated: int | str | None, known: int | None) -> None:
    model = Model(path="org/model", engine_args={"max_model_len": stated})
    assert limits_of_manifest(model) == ModelLimits(context_tokens=known)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"score_from": 4}, "sampling.scoreFrom: found 4, allowed with a prompt of 4 tokens: 1 to 3"),
        ({"score_from": 1, "logprobs": "none"}, "needs log-probabilities"),
        ({"score_from": 1, "temperature": 0.5}, "unmodified distribution"),
        ({"score_from": 1, "top_k": 5}, "unmodified distribution"),
        ({"score_from": 1, "force_lengths": True}, "not allowed with forceLengths"),
        ({"top_logprobs": 1, "logprobs": "none"}, "sampling.topLogprobs: needs log-probabilities"),
        ({"top_logprobs": 9}, "sampling.topLogprobs: found 9, the model has 8 tokens"),
    ],
)
def test_a_prompt_that_cannot_be_scored_is_refused(fields: dict[str, Any], problem: str) -> None:
    assert problem in (misfit([1, 2, 3, 4], Sampling(**fields), ModelLimits(vocabulary=8)) or "")


def test_likeliest_tokens_of_responses_too_long_for_a_store_are_refused() -> None:
    long = Sampling(top_logprobs=20, max_tokens=10**6)
    told = "sampling.topLogprobs: found 20 for up to 999,996 tokens, allowed with it: at most 137,313 tokens"
    assert told in (misfit([1] * 4, long, ModelLimits(context_tokens=10**6)) or "")
    assert misfit([1] * 4, long, ModelLimits(context_tokens=2**17)) is None
    assert misfit([1] * 4, Sampling(max_tokens=10**6), ModelLimits()) is None
    scored = Sampling(score_from=1, top_logprobs=20)
    assert "for up to 199,999 tokens" in (misfit([1] * 200_000, scored, ModelLimits()) or "")


def test_raw_scores_need_no_temperature_of_one() -> None:
    sampling = Sampling(score_from=1, temperature=0.5, logprobs="raw")
    assert misfit([1, 2, 3, 4], sampling, ModelLimits()) is None


def test_a_scored_prompt_needs_room_for_just_one_token() -> None:
    sampling = Sampling(score_from=1, max_tokens=1, min_tokens=1)
    assert misfit([1, 2, 3, 4], sampling, ModelLimits(context_tokens=5)) is None
    assert "no room" in (misfit([1, 2, 3, 4], sampling, ModelLimits(context_tokens=4)) or "")
    assert (sampling.most_added, Sampling(score_from=1).most_added, Sampling(max_tokens=7).most_added) == (1, 1, 7)
