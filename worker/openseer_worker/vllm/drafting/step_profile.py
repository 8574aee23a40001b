"""Measures a step's duration by its rows and drafts at an engine's start, with real requests and random drafts."""

import math
import time
from typing import Any

import numpy as np

from openseer_core.manifest.job import Sampling
from openseer_worker.engine import DraftNews, EngineProfile, EngineRequest
from openseer_worker.vllm.drafting.calls import DraftCalls

PROFILE_SECONDS = 3.0
"""Time limit of the profile, in seconds; with a slow model, the drafter learns the other durations while it drafts."""
ROWS = (1, 4, 16)
"""Measured numbers of rows; the greatest number of concurrent requests is measured, too."""
LENGTHS = (0, 1, 3, 7)
"""Measured numbers of draft tokens per row."""
ROUNDS = 5
"""Number of measurements of each length; their median counts."""
WORTH_IT = 1.05
"""Least speed-up, if all drafts were accepted, with which the engine drafts."""
PROMPT_TOKENS = 32
_GROUP = "step-profile"
_SPARE_TOKENS = 2 * max(LENGTHS)
_SEED = 1

MeasuredCosts = dict[tuple[int, int], float]
"""For (rows, draft tokens per row) the seconds of a step."""


def measure(
    core: Any, calls: DraftCalls, inputs: Any, profile: EngineProfile, sampling: Sampling, most: int
) -> MeasuredCosts:
    """Profiles an engine before its first request, with at most `most` draft tokens per row. Leaves its cache empty.

    Returns no costs if the context is too short for a measurement.
    """
    lengths = [length for length in LENGTHS if length <= most]
    tokens = ROUNDS * len(lengths) + _SPARE_TOKENS
    request_blocks = profile.layout.blocks(PROMPT_TOKENS + tokens, PROMPT_TOKENS)
    full = min(profile.slots, profile.blocks // request_blocks)
    deadline = time.monotonic() + PROFILE_SECONDS
    costs: MeasuredCosts = {}
    if PROMPT_TOKENS + tokens >= profile.context_tokens:
        return costs
    # The least and the greatest batch first: they decide whether drafts pay at all.
    for rows in dict.fromkeys((1, full, *ROWS)):
        if not 0 < rows <= full or time.monotonic() > deadline:
            continue
        calls.probe(rows, lengths, ROUNDS)
        _play(core, inputs, sampling, rows, tokens, deadline)
        for length, seconds in calls.end_probe():
            costs[rows, length] = seconds
    calls.feed(DraftNews(released=[_GROUP]))
    core.reset_prefix_cache()
    return costs


def best_gain(costs: MeasuredCosts) -> float:
    """Returns the greatest measured speed-up, if all drafts were accepted; infinite without measurements."""
    gains = [
        (1 + length) * costs[rows, 0] / seconds
        for (rows, length), seconds in costs.items()
        if length and (rows, 0) in costs
    ]
    return max(gains, default=math.inf)


def _play(core: Any, inputs: Any, sampling: Sampling, rows: int, tokens: int, deadline: float) -> None:
    """Runs `rows` requests of `tokens` tokens each, to their end or the deadline."""
    from vllm.inputs.engine import tokens_input

    from openseer_worker.vllm import arguments as vllm_arguments

    plain = sampling.model_copy(update={"ignore_eos": True, "min_tokens": 0, "stop_token_ids": (), "stop": ()})
    random = np.random.default_rng(_SEED)
    prompts = random.integers(0, inputs.model_config.get_vocab_size(), (rows, PROMPT_TOKENS)).tolist()
    running: set[str] = set()
    for index, prompt in enumerate(prompts):
        request = EngineRequest(f"{_GROUP}-{rows}-{index}", _GROUP, index, prompt, [], tokens, plain)
        params = vllm_arguments.sampling_params(request, tokens, log_probabilities=sampling.logprobs != "none")
        text = tokens_input(prompt, cache_salt=_GROUP)
        core_request = inputs.process_inputs(request.key, text, params, ("generate",))
        core_request.external_req_id = request.key
        core.add_request(core_request)
        running.add(request.key)
    while running:
        for output in core.get_output().outputs:
            if output.finish_reason is not None:
                running.discard(output.request_id)
        if running and time.monotonic() > deadline:
            core.abort_requests(list(running))
            return
