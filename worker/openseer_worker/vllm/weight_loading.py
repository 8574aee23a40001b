"""What vLLM is asked for beside tokens: other weights, the score of a sequence, sleep. All of it between two steps."""

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
"""vLLM's levels of sleep: weights go to the host's memory, or are thrown away. The KV cache is dropped by both."""
SCORED_TOKENS = 8
"""So many tokens are scored after each load: one small step of the engine. NaN or infinity in what all tokens pass, or
in any row of the output layer, shows; in an expert, or a row of the embedding, that none of these has, it does not."""
_NUMBER = itertools.count()


def _ignore(outputs: Any) -> None:
    """There are no other requests."""


def load(core: Any, weights: NewWeights, own_model: str) -> None:
    """Replaces the weights in place; all cached prefixes go. Raises LoadError."""
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
    """Log-probabilities of `tokens[1:]`, read from the prompt of a request of its own. Raises LoadError.

    `adapter`: vLLM's LoRARequest, or None; `aside`: takes what the steps produce for other requests.
    """
    from vllm import SamplingParams
    from vllm.inputs.engine import tokens_input

    if len(tokens) >= context_tokens:
        raise LoadError(f"canary: found {len(tokens)} tokens, this engine's context takes {context_tokens - 1}")
    key = f"canary-{next(_NUMBER)}"
    # Prompt log-probabilities are the model's own, whatever kind the engine records for what it samples.
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
                # The first column is the prompt's own token.
                scored += cast("list[float]", output.new_prompt_logprobs_tensors.logprobs[:, 0].tolist())
            if output.finish_reason is not None:
                return scored


def check_scores(
    core: Any, inputs: Any, profile: EngineProfile, adapter: Any = None, aside: Callable[[Any], None] = _ignore
) -> None:
    """Scores a few tokens with the weights that are loaded. Raises LoadError when a score is not finite. `adapter`,
    `aside`: as in score."""
    count = min(SCORED_TOKENS, profile.context_tokens - 1)
    if count < 2:  # the first token has no score
        return
    # Special tokens, which a model may take for images, are the first or the last of a vocabulary.
    first = max(0, (profile.vocabulary or 0) - count) // 2
    scored = score(core, inputs, list(range(first, first + count)), profile.context_tokens, adapter, aside)
    check_finite(scored, f"{count} tokens were scored after the load", profile.dtype)


def sleep(core: Any, config: Any, *, keep_weights: bool) -> bool:
    """Gives the GPU's memory back, and says whether it did; on a CPU there is nothing to give. Raises LoadError."""
    if environment.is_cpu_build():
        return False
    if not config.model_config.enable_sleep_mode:
        raise LoadError("to sleep, the engine must be started for it: spec.model.engineArgs.enable_sleep_mode: true")
    core.collective_rpc("end_fetches")
    core.sleep(_KEEPS_WEIGHTS if keep_weights else _DISCARDS_WEIGHTS)
    return True


def wake(core: Any, *, weights_only: bool) -> None:
    """The opposite of sleep, of all that still sleeps or of the weights alone."""
    if not environment.is_cpu_build():
        core.wake_up(["weights"] if weights_only else None)
