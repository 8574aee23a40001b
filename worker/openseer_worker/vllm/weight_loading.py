"""Loads weights, scores sequences, and puts an engine to sleep or wakes it: calls of vLLM's core between two steps."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from openseer_core.errors import LoadError
from openseer_worker.engine import EngineProfile, NewWeights
from openseer_worker.vllm import environment
from openseer_worker.weights.files import check_files
from openseer_worker.weights.scores import check_finite

_KEEPS_WEIGHTS, _DISCARDS_WEIGHTS = 1, 2
"""vLLM's levels of sleep: weights move to the host's memory, or are discarded. Both drop the KV cache."""
SCORED_TOKENS = 8
"""Tokens scored after each load, in one small step of the engine. The check detects NaN or infinity in weights that all
tokens use and in any row of the output layer, but not in an expert or a row of the embedding that no scored token uses.
"""
_NUMBER = itertools.count()


def _ignore(outputs: Any) -> None:
    """Ignores outputs: no other requests run."""


def load(core: Any, weights: NewWeights, own_model: str) -> None:
    """Replaces the weights in place and drops all cached prefixes. `own_model`: path of the job's own model.

    Raises LoadError for incomplete files; also vLLM's errors, after undoing the load.
    """
    if weights.folder is not None:
        own = Path(own_model)
        check_files(weights.folder, own if own.is_dir() else None)
    path = own_model if weights.folder is None else str(weights.folder)
    core.collective_rpc("end_fetches")
    try:
        core.collective_rpc("reload_weights", kwargs={"weights_path": path})
    except Exception:
        core.collective_rpc("undo_broken_load")
        raise
    if environment.is_cpu_build():
        core.collective_rpc("finish_load")
    core.reset_prefix_cache()


def score(
    core: Any,
    inputs: Any,
    tokens: list[int],
    context_tokens: int,
    adapter: Any = None,
    aside: Callable[[Any], None] = _ignore,
) -> list[float]:
    """Returns the log-probabilities of `tokens[1:]`, computed as the prompt of a separate request.

    `adapter`: vLLM's LoRARequest, or None; `aside`: receives the outputs of each step, for other requests. Raises
    LoadError if the tokens do not fit the context.
    """
    from vllm import SamplingParams
    from vllm.inputs.engine import tokens_input

    if len(tokens) >= context_tokens:
        raise LoadError(f"canary: found {len(tokens)} tokens, this engine's context takes {context_tokens - 1}")
    key = f"canary-{next(_NUMBER)}"
    # Prompt log-probabilities are always the model's own; logprobs_mode concerns sampled tokens only.
    params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, detokenize=False)
    request = inputs.process_inputs(
        key, tokens_input(tokens, cache_salt=key), params, ("generate",), lora_request=adapter
    )
    request.external_req_id = key
    core.add_request(request)
    scored: list[float] = []
    while True:
        outputs = core.get_output()
        aside(outputs)
        for output in outputs.outputs:
            if output.request_id != key:
                continue
            if output.new_prompt_logprobs_tensors is not None:
                # The first column is the score of the prompt's token.
                scored += cast("list[float]", output.new_prompt_logprobs_tensors.logprobs[:, 0].tolist())
            if output.finish_reason is not None:
                return scored


def check_scores(
    core: Any, inputs: Any, profile: EngineProfile, adapter: Any = None, aside: Callable[[Any], None] = _ignore
) -> None:
    """Scores SCORED_TOKENS tokens with the loaded weights. Raises LoadError if a score is not finite. `adapter`,
    `aside`: as in `score`."""
    count = min(SCORED_TOKENS, profile.context_tokens - 1)
    if count < 2:  # the first token has no score
        return
    # From the middle: special tokens, which may stand for images, are at the beginning or the end of a vocabulary.
    first = max(0, (profile.vocabulary or 0) - count) // 2
    scored = score(core, inputs, list(range(first, first + count)), profile.context_tokens, adapter, aside)
    check_finite(scored, f"{count} tokens were scored after the load", profile.dtype)


def sleep(core: Any, config: Any, *, keep_weights: bool) -> bool:
    """Frees the GPU's memory; returns False on a CPU, where it does nothing. Raises LoadError without sleep mode."""
    if environment.is_cpu_build():
        return False
    if not config.model_config.enable_sleep_mode:
        raise LoadError("to sleep, the engine must be started for it: spec.model.engineArgs.enable_sleep_mode: true")
    core.collective_rpc("end_fetches")
    core.sleep(_KEEPS_WEIGHTS if keep_weights else _DISCARDS_WEIGHTS)
    return True


def wake(core: Any, *, weights_only: bool) -> None:
    """Allocates the memory again: all of it, or with `weights_only` that of the weights."""
    if not environment.is_cpu_build():
        core.wake_up(["weights"] if weights_only else None)
