"""What a step costs by rows and drafts: measured when an engine starts, by real requests with drafts at random."""

# vLLM carries few types: what comes from it is Any here.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

import math
import time
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openseer_core.manifest.job import Sampling
from openseer_worker.engine import EngineProfile, EngineRequest

PROFILE_SECONDS = 3.0
"""Most time that the profile takes; what a slow model has not shown by then, it shows at work."""
ROWS = (1, 4, 16)
"""Rows at which the engine is measured, beside all its slots."""
LENGTHS = (0, 1, 3, 7)
"""Drafts per row at which it is measured."""
ROUNDS = 5
"""So often each of them, in turn; the median counts."""
WORTH_IT = 1.05
"""Drafting is given up where it could not even make the engine so much faster."""
PROMPT_TOKENS = 32
_GROUP = "step-profile"
_SPARE_TOKENS = 2 * max(LENGTHS)
_SEED = 1

StepCosts = dict[tuple[int, int], float]
"""(rows, drafts per row) → seconds of a step."""


class Probe:
    """Within vLLM: drafts of given lengths in turn, and how long the steps took that verified them."""

    def __init__(self, rows: int, lengths: list[int], rounds: int, vocabulary: int) -> None:
        self._rows = rows
        self._turns = lengths * rounds
        self._drawn = np.random.default_rng(_SEED)
        self._vocabulary = vocabulary
        self._last: int | None = None
        self._seconds: dict[int, list[float]] = {length: [] for length in lengths}

    def drafts(self, rows: int, seconds: float) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The next drafts, (rows, most) and (rows,). `seconds`: of the step that verified the last; 0: unknown."""
        if self._last is not None and seconds and rows == self._rows:
            self._seconds[self._last].append(seconds)
        self._last = self._turns.pop() if self._turns and rows == self._rows else None
        length = self._last or 0
        tokens = self._drawn.integers(0, self._vocabulary, (rows, length), np.int32)
        return tokens, np.full(rows, length, np.int32)

    def medians(self) -> list[tuple[int, float]]:
        """Drafts per row, the median seconds of a step."""
        return [(length, median(found)) for length, found in self._seconds.items() if found]


def measure(core: Any, inputs: Any, profile: EngineProfile, sampling: Sampling, most: int) -> StepCosts:
    """Profiles an engine that has not begun to work; at most `most` drafts per row. Leaves nothing in its cache."""
    lengths = [length for length in LENGTHS if length <= most]
    tokens = ROUNDS * len(lengths) + _SPARE_TOKENS
    each = -(-(PROMPT_TOKENS + tokens) // profile.block_tokens)
    full = min(profile.slots, profile.blocks // each)
    deadline = time.monotonic() + PROFILE_SECONDS
    costs: StepCosts = {}
    if PROMPT_TOKENS + tokens >= profile.context_tokens:
        return costs
    # The extremes first: they decide whether drafts pay at all.
    for rows in dict.fromkeys((1, full, *ROWS)):
        if not 0 < rows <= full or time.monotonic() > deadline:
            continue
        core.collective_rpc("ask_drafter", args=("probe", rows, lengths, ROUNDS))
        _play(core, inputs, sampling, rows, tokens, deadline)
        answers = core.collective_rpc("ask_drafter", args=("end_probe",))
        for length, seconds in next((answer for answer in answers if answer), []):
            costs[rows, length] = seconds
    core.collective_rpc("ask_drafter", args=("feed", [], [], {}, [_GROUP]))
    core.reset_prefix_cache()
    return costs


def best_gain(costs: StepCosts) -> float:
    """How many times as fast the engine would be at best, were all drafts accepted; infinite when not measured."""
    gains = [
        (1 + length) * costs[rows, 0] / seconds
        for (rows, length), seconds in costs.items()
        if length and (rows, 0) in costs
    ]
    return max(gains, default=math.inf)


def _play(core: Any, inputs: Any, sampling: Sampling, rows: int, tokens: int, deadline: float) -> None:
    """So many requests of so many tokens each, to their end or the deadline."""
    from vllm.inputs.engine import tokens_input

    from openseer_worker.vllm import arguments as vllm_arguments

    plain = sampling.model_copy(update={"ignore_eos": True, "min_tokens": 0, "stop_token_ids": (), "stop": ()})
    drawn = np.random.default_rng(_SEED)
    prompts = drawn.integers(0, inputs.model_config.get_vocab_size(), (rows, PROMPT_TOKENS)).tolist()
    running: set[str] = set()
    for index, prompt in enumerate(prompts):
        work = EngineRequest(f"{_GROUP}-{rows}-{index}", _GROUP, index, prompt, [], tokens, plain)
        params = vllm_arguments.sampling_params(work, tokens, log_probabilities=sampling.logprobs != "none")
        request = inputs.process_inputs(work.key, tokens_input(prompt, cache_salt=_GROUP), params, ("generate",))
        request.external_req_id = work.key
        core.add_request(request)
        running.add(work.key)
    while running:
        for output in core.get_output().outputs:
            if output.finish_reason is not None:
                running.discard(output.request_id)
        if running and time.monotonic() > deadline:
            core.abort_requests(list(running))
            return
