"""Drafts inside vLLM: the proposer that vLLM calls after each step, and patches so that steps without drafts cost no
extra time.

The patches fit the sampling of vLLM in `environment.CHECKED_VERSIONS`. vLLM creates the proposer, and the worker's
extension gives it the model runner. From then on a step without drafts is sampled as in an engine without drafts, and
drafts are proposed up to the last token of the context.
"""

import logging
import sys
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openseer_draft.drafter import Drafter
from openseer_draft.warm import warm_up
from openseer_worker.engine import DraftNews
from openseer_worker.vllm.drafting.prompt_scores import score_in_pieces
from openseer_worker.vllm.drafting.step_probe import Probe
from openseer_worker.vllm.environment import is_cpu_build
from openseer_worker.vllm.routing.capture import RowCapture, RowsOf
from openseer_worker.vllm.routing.shape import wants_routes

_LOG = logging.getLogger(__name__)
OPTIONS = "openseer_drafts"
"""Key of the proposer's options in vLLM's `additional_config`."""
UNKNOWN = 0.0
"""Replaces the seconds of a step that did more than verify drafts."""
PADDED_BYTES = 2**30
"""Memory for the log-probabilities of drafts, in bytes, beside the memory that vLLM measures for the engine."""
_ENTRY_BYTES = 2 * 4
"""Bytes per row and vocabulary entry: logits and log-probabilities in float32."""


def longest_draft(rows: int, profiled: int, vocabulary: int) -> int:
    """Returns the limit of tokens per draft in a step of `rows` rows with log-probabilities.

    vLLM pads the log-probabilities of every row to the longest draft: `rows` * (1 + longest) rows of `vocabulary`
    entries in float32, twice (rejection_sampler.py, `_get_logprobs_tensors`). vLLM's measurement of the engine's memory
    includes `profiled` rows.
    """
    return max(0, (profiled + PADDED_BYTES // (_ENTRY_BYTES * vocabulary)) // max(1, rows) - 1)


class _DraftedRequest(NamedTuple):
    """A request with drafts. `least`: number of tokens, of prompt and response, up to which stop tokens are masked;
    `limit`: the greatest number of tokens that it can have."""

    slot: int
    group: str
    least: int
    limit: int


class _NoDrafts(NamedTuple):
    """Replaces vLLM's description of a step's drafts in a step without drafts."""

    logits_indices: Any


class GroupProposer:
    """Proposes drafts from the tokens of a request's group. vLLM creates a proposer in each process of the last
    pipeline stage, and uses only the first rank's drafts."""

    def __init__(self, vllm_config: Any) -> None:
        options: dict[str, Any] = vllm_config.additional_config[OPTIONS]
        self._never_drafts = bool(options["never"])
        self._routes = RowCapture(vllm_config) if wants_routes(vllm_config) else None
        self._memory = int(options["memory_bytes"])
        self._logprobs = bool(options["logprobs"])
        self._most = int(vllm_config.speculative_config.num_speculative_tokens)
        self._budget = int(vllm_config.scheduler_config.max_num_batched_tokens)
        self._context = int(vllm_config.model_config.max_model_len)
        self._vocabulary = int(vllm_config.model_config.get_vocab_size())
        self._profiled = int(vllm_config.scheduler_config.max_num_seqs)
        # Twice the limit of requests, since preempted requests, which are few, keep their slots.
        self._capacity = 2 * self._profiled
        self._runner: Any = None
        self._drafter: Drafter | None = None
        self._probe: Probe | None = None
        self._off = ""
        self._drafts = False
        self._ended_at = 0.0
        self._requests: dict[str, _DraftedRequest] = {}
        self._importance: dict[str, float] = {}
        # The last step's batch: the keys of its requests, and the rows and slots of the requests that can have drafts.
        self._ids: list[str] = []
        self._rows = self._slots = self._least = self._limits = np.zeros(0, np.int32)

    def load_model(self, model: Any, *_: Any, **__: Any) -> None:
        """Binds the capture of routed experts to `model`, which verifies drafts. vLLM requires this method; there is no
        draft model to load."""
        if self._routes is not None:
            self._routes.bind(model)

    def attach(self, runner: Any) -> None:
        """Patches the model runner of this process, and begins to draft on the rank whose drafts are used."""
        from vllm.distributed import get_tp_group

        if is_cpu_build():
            _mend_sampling()
        _skip_without_drafts(runner)
        score_in_pieces(runner)
        self._runner = runner
        if get_tp_group().rank_in_group > 0:
            return
        if self._routes is not None:
            self._routes.attach(runner)
        if not self._never_drafts:
            take = runner.take_draft_token_ids
            runner.take_draft_token_ids = lambda: take() if self._drafts else None
            warm_up()  # otherwise the first step would take half a second longer
            self._drafter = Drafter(slots=self._capacity, max_tokens=self._most, memory_bytes=self._memory)

    # Called by the worker's extension, between two steps.

    def feed(self, news: DraftNews) -> list[int]:
        """Gives news of groups to the drafter; returns, for each entry of `tokens`, the number of the response's tokens
        that the drafter has. Empty on the ranks that do not draft."""
        drafter = self._drafter
        if drafter is None:
            return []
        self._ended_at = UNKNOWN
        for group, responses in news.earlier:
            drafter.seed(group, responses)
        known = [drafter.append(*new) for new in news.tokens]
        self._importance = news.importance
        for key, request in self._requests.items():
            drafter.set_importance(request.slot, news.importance.get(key, 1.0))
        if news.released:
            released = frozenset(news.released)
            self._close([key for key, request in self._requests.items() if request.group in released])
            for group in news.released:
                drafter.release(group)
        return known

    def metrics(self) -> tuple[str, dict[str, float]] | None:
        """Returns the reason why drafting has ended, or "", and the drafter's metrics; None without a drafter."""
        return None if self._drafter is None else (self._off, self._drafter.metrics())

    def probe(self, rows: int, lengths: list[int], rounds: int) -> None:
        """Begins to propose random drafts in steps with `rows` rows, of each length in turn, `rounds` times."""
        if self._drafter is not None:
            self._probe = Probe(rows, lengths, rounds, self._vocabulary)
            self._ended_at = UNKNOWN

    def end_probe(self) -> list[tuple[int, float]]:
        """Ends the random drafts; returns (length, median seconds of a step) for each length."""
        probe, self._probe = self._probe, None
        return probe.medians() if probe is not None else []

    def learn(self, rows: int, drafted: int, seconds: float) -> None:
        """Reports to the drafter the seconds of a step that verifies `drafted` draft tokens for `rows` rows."""
        if self._drafter is not None:
            self._drafter.costs.learn(rows, drafted, seconds)

    def switch_off(self, reason: str) -> None:
        """Ends drafting; later steps are as without a drafter."""
        self._off = reason

    def take_routes(self) -> list[RowsOf] | None:
        """Calls RowCapture.take; returns None if no routed experts are captured."""
        return None if self._routes is None else self._routes.take()

    # Called by vLLM after each step.

    def propose(
        self,
        sampled_token_ids: list[list[int]],
        num_tokens_no_spec: NDArray[np.int32],
        token_ids_cpu: NDArray[np.int32],
        slot_mappings: Any = None,
    ) -> list[list[int]]:
        """Returns a draft for each row, empty for a row without new tokens.

        `sampled_token_ids`: the new tokens of each row; `num_tokens_no_spec`: int32 [rows], tokens so far;
        `token_ids_cpu`: int32 [rows, longest context].
        """
        self._drafts = False
        if self._routes is not None:
            self._routes.note(num_tokens_no_spec)
        if self._drafter is None or self._off:
            return [[]] * len(sampled_token_ids)
        try:
            return self._propose(self._drafter, sampled_token_ids, num_tokens_no_spec, token_ids_cpu)
        except Exception as error:  # noqa: BLE001 - the engine works without drafts, but needs a return value
            _LOG.exception("drafting ends")
            self._off = f"the drafter failed: {str(error) or type(error).__name__}"
            self._drafts = False
            return [[]] * len(sampled_token_ids)

    def _propose(
        self,
        drafter: Drafter,
        sampled: list[list[int]],
        lengths_so_far: NDArray[np.int32],
        token_ids: NDArray[np.int32],
    ) -> list[list[int]]:
        count = len(sampled)
        seconds = perf_counter() - self._ended_at if self._ended_at else UNKNOWN
        if not self._match(self._runner.input_batch.req_ids, sampled, lengths_so_far, token_ids):
            seconds = UNKNOWN
        ends = lengths_so_far[self._rows]
        if self._probe is not None:
            drafts, wanted = self._probe.drafts(len(ends), seconds)
        else:
            found = drafter.step(self._slots, token_ids, self._rows, ends, seconds)
            drafts, wanted = found.tokens, found.lengths
        given = self._allowed(count, wanted, ends)
        proposed = self._spread(count, drafts, given)
        # The drafter learns times only from steps that verify exactly its drafts.
        self._ended_at = perf_counter() if np.array_equal(given, wanted) else UNKNOWN
        return proposed

    def _allowed(self, count: int, wanted: NDArray[np.int32], ends: NDArray[np.int32]) -> NDArray[np.int32]:
        """Returns the usable length of each row's draft.

        The token after a draft must be within the response. While stop tokens are masked, the mask must hold for that
        token, too, because vLLM chooses the mask as if no draft preceded the token. All drafts together must leave one
        token of vLLM's budget per step to each row. With log-probabilities the longest draft costs memory on every row.
        """
        bounds = np.where(ends < self._least, np.minimum(self._least, self._limits), self._limits)
        given = np.maximum(0, np.minimum(wanted, bounds - ends - 1))
        if self._logprobs:
            given = np.minimum(given, longest_draft(count, self._profiled, self._vocabulary))
        spare = self._budget - count
        return np.minimum(given, max(0, spare) // count) if given.sum() > spare else given

    def _spread(self, count: int, drafts: NDArray[np.int32], lengths: NDArray[np.int32]) -> list[list[int]]:
        """Returns a draft for each row of the batch, from the drafts of the rows that can have one."""
        if not lengths.any():
            return [[]] * count
        self._drafts = True
        cut = [row[:length] for row, length in zip(drafts.tolist(), lengths.tolist(), strict=True)]
        if len(cut) == count:
            return cut
        proposed: list[list[int]] = [[] for _ in range(count)]
        for row, draft in zip(self._rows.tolist(), cut, strict=True):
            proposed[row] = draft
        return proposed

    def _match(
        self, ids: list[str], sampled: list[list[int]], ends: NDArray[np.int32], tokens: NDArray[np.int32]
    ) -> bool:
        """Finds the rows' slots. Returns whether all rows got tokens and are the same as in the step before."""
        whole = all(sampled)
        if whole and ids == self._ids:
            return True
        self._close([key for key in self._requests if key not in self._runner.requests])
        if len(self._requests) + len(ids) > self._capacity:
            present = frozenset(ids)
            self._close([key for key in self._requests if key not in present])
        found: list[tuple[int, int, int, int]] = []
        for row, new in enumerate(sampled):
            request = self._request(ids[row], tokens[row, : ends[row]]) if new else None
            if request is not None:
                found.append((row, request.slot, request.least, request.limit))
        columns = np.array(found, np.int32).reshape(-1, 4).T
        self._rows, self._slots, self._least, self._limits = map(np.ascontiguousarray, columns)
        self._ids = ids.copy() if whole else []
        return False

    def _request(self, key: str, context: NDArray[np.int32]) -> _DraftedRequest | None:
        """Returns the request with this key, and opens it at its first step; None for a request without a group."""
        request = self._requests.get(key)
        if request is not None:
            return request
        state = self._runner.requests[key]
        extra = state.sampling_params.extra_args or {}
        if "group" not in extra or self._drafter is None:
            return None
        slot = self._drafter.open(extra["group"], extra["index"], context, extra["response_start"])
        least = state.num_prompt_tokens + state.sampling_params.min_tokens
        limit = min(self._context, state.num_prompt_tokens + state.sampling_params.max_tokens)
        self._drafter.set_importance(slot, self._importance.get(key, 1.0))
        request = self._requests[key] = _DraftedRequest(slot, extra["group"], least, limit)
        return request

    def _close(self, keys: list[str]) -> None:
        if self._drafter is None or not keys:
            return
        self._ids = []
        for key in keys:
            self._drafter.close(self._requests.pop(key).slot)


def _skip_without_drafts(runner: Any) -> None:
    """Makes vLLM sample a step without drafts as without speculation, and draft up to the context's end.

    If one row is within the last tokens of its context, vLLM would draft for no row of the batch, and verify zeros
    instead. Only draft models need that; vLLM's scheduler cuts drafts to the context's end anyway.
    """
    from vllm.utils.torch_utils import async_tensor_h2d

    describe, sample = runner._calc_spec_decode_metadata, runner._sample

    def describe_drafts(num_draft_tokens: NDArray[np.int32], cu_num_scheduled_tokens: NDArray[np.int32]) -> Any:
        if num_draft_tokens.any():
            return describe(num_draft_tokens, cu_num_scheduled_tokens)
        return _NoDrafts(async_tensor_h2d(cu_num_scheduled_tokens - 1, device=runner.device))

    def sample_plainly(logits: Any, spec_decode_metadata: Any) -> Any:
        return sample(logits, None if isinstance(spec_decode_metadata, _NoDrafts) else spec_decode_metadata)

    runner._calc_spec_decode_metadata = describe_drafts
    runner._sample = sample_plainly
    runner.effective_drafter_max_model_len = sys.maxsize


def _mend_sampling() -> None:
    """Makes vLLM expand each row's temperature, top-k and top-p to the row's drafts with torch operations.

    On a CPU vLLM's own code writes them to a temporary copy, so that drafts are verified with uninitialised values.
    """
    import torch
    import vllm.v1.sample.rejection_sampler as sampler

    def expand(x: Any, cu_num_tokens: Any, num_tokens: int, replace_from: int = 0, replace_to: int = 0) -> Any:
        counts = torch.diff(cu_num_tokens.to(torch.int64), prepend=torch.zeros(1, dtype=torch.int64))
        return x.masked_fill(x == replace_from, replace_to).repeat_interleave(counts, output_size=num_tokens)

    sampler.expand_batch_to_tokens = expand
