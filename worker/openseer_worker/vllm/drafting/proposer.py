"""Drafts inside vLLM: the proposer it calls after each step, and what lets a step without drafts cost nothing.

It changes vLLM's sampling for drafts, as it is in `environment.CHECKED_VERSIONS`. vLLM makes the proposer, the worker's
extension hands it the model runner. From then on a step that verifies nothing is sampled as if there were no
drafts, and drafting goes on up to the last token of the context.
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
"""Where vLLM's `additional_config` carries our options to the proposer."""
UNKNOWN = 0.0
"""Stands for the seconds of a step that was more than a verification."""


PADDED_BYTES = 2**30
"""Memory for the log-probabilities of drafts, beyond what vLLM has seen when it measured how much the engine needs."""
_ENTRY_BYTES = 2 * 4
"""A token of the vocabulary, float32: the logits of a row, and its log-probabilities."""


def longest_draft(rows: int, profiled: int, vocabulary: int) -> int:
    """How many tokens a draft may have in a step of so many rows in which log-probabilities are computed.

    For them vLLM pads every row to the longest draft: `rows` * (1 + longest) rows of the `vocabulary` in float32, twice
    (rejection_sampler.py, `_get_logprobs_tensors`). Its measurement of the engine's memory has `profiled` rows.
    """
    return max(0, (profiled + PADDED_BYTES // (_ENTRY_BYTES * vocabulary)) // max(1, rows) - 1)


class _DraftedRequest(NamedTuple):
    """A request that is drafted for. `least`, `limit`: tokens of prompt and response before which no stop token may
    come, and that it can have at most."""

    slot: int
    group: str
    least: int
    limit: int


class _NoDrafts(NamedTuple):
    """Stands where vLLM describes a step's drafts when there are none."""

    logits_indices: Any


class GroupProposer:
    """Proposes what a request's group makes likely. vLLM makes one in each process of the last pipeline
    stage; only the first rank's counts."""

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
        # Preempted requests keep their slots; there are few.
        self._capacity = 2 * self._profiled
        self._runner: Any = None
        self._drafter: Drafter | None = None
        self._probe: Probe | None = None
        self._off = ""
        self._drafts = False
        self._ended_at = 0.0
        self._requests: dict[str, _DraftedRequest] = {}
        self._importance: dict[str, float] = {}
        # The batch of the last step: its requests, and the rows and slots of those that can be drafted for.
        self._ids: list[str] = []
        self._rows = self._slots = self._least = self._limits = np.zeros(0, np.int32)

    def load_model(self, model: Any, *_: Any, **__: Any) -> None:
        """vLLM requires it; there is no draft model. `model`: the one that verifies."""
        if self._routes is not None:
            self._routes.bind(model)

    def attach(self, runner: Any) -> None:
        """Takes the model runner this proposer works for, and begins to draft where the drafts count."""
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
            warm_up()  # which would cost the first step half a second
            self._drafter = Drafter(slots=self._capacity, max_tokens=self._most, memory_bytes=self._memory)

    # Called by the worker's extension, between two steps.

    def feed(self, news: DraftNews) -> list[int]:
        """Takes news of groups; returns how many tokens are known then of the response of each `tokens`."""
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
        """Why nothing is drafted any more, or "", and the drafter's metrics; None on the other ranks."""
        return None if self._drafter is None else (self._off, self._drafter.metrics())

    def probe(self, rows: int, lengths: list[int], rounds: int) -> None:
        """From now on drafts at random, once there are so many rows: each of these lengths in turn, so many times."""
        if self._drafter is not None:
            self._probe = Probe(rows, lengths, rounds, self._vocabulary)
            self._ended_at = UNKNOWN

    def end_probe(self) -> list[tuple[int, float]]:
        """Ends that: for each length the median seconds of a step."""
        probe, self._probe = self._probe, None
        return probe.medians() if probe is not None else []

    def learn(self, rows: int, drafted: int, seconds: float) -> None:
        """Teaches the drafter what a step costs that verifies `drafted` drafts for so many rows."""
        if self._drafter is not None:
            self._drafter.costs.learn(rows, drafted, seconds)

    def switch_off(self, reason: str) -> None:
        """Drafts no more; steps go on as if there were no drafter."""
        self._off = reason

    def take_routes(self) -> list[RowsOf] | None:
        """RowCapture.take; None where nothing is captured."""
        return None if self._routes is None else self._routes.take()

    # Called by vLLM after each step.

    def propose(
        self,
        sampled_token_ids: list[list[int]],
        num_tokens_no_spec: NDArray[np.int32],
        token_ids_cpu: NDArray[np.int32],
        slot_mappings: Any = None,
    ) -> list[list[int]]:
        """A draft for each row, up to the most tokens allowed. A row that got no tokens in this step gets none."""
        self._drafts = False
        if self._routes is not None:
            self._routes.note(num_tokens_no_spec)
        if self._drafter is None or self._off:
            return [[]] * len(sampled_token_ids)
        try:
            return self._propose(self._drafter, sampled_token_ids, num_tokens_no_spec, token_ids_cpu)
        except Exception as error:  # noqa: BLE001 - the engine can do without drafts, but not without an answer
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
        # What is verified otherwise than it was proposed teaches the drafter nothing about time.
        self._ended_at = perf_counter() if np.array_equal(given, wanted) else UNKNOWN
        return proposed

    def _allowed(self, count: int, wanted: NDArray[np.int32], ends: NDArray[np.int32]) -> NDArray[np.int32]:
        """How much of each draft is of use.

        The token after it still belongs to the response; where stop tokens are held back yet, they still are for that
        token, for vLLM asks about it as if there were no draft before it. And no row goes without a step because
        others' drafts take up what vLLM computes in one. With log-probabilities the longest draft costs memory on every
        row.
        """
        bounds = np.where(ends < self._least, np.minimum(self._least, self._limits), self._limits)
        given = np.maximum(0, np.minimum(wanted, bounds - ends - 1))
        if self._logprobs:
            given = np.minimum(given, longest_draft(count, self._profiled, self._vocabulary))
        spare = self._budget - count
        return np.minimum(given, max(0, spare) // count) if given.sum() > spare else given

    def _spread(self, count: int, drafts: NDArray[np.int32], lengths: NDArray[np.int32]) -> list[list[int]]:
        """Drafts of the rows that can have one → a list for each row of the batch."""
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
        """Finds the rows' slots. True when all rows got tokens and are those of the step before."""
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
        """The request of that key, opened if need be; None for one that belongs to no group."""
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
    """Lets a step without drafts be sampled as if vLLM did not speculate, and drafting go on near the context's end.

    Within a context's last tokens vLLM would ask nobody for drafts, for the whole batch, and verify zeros instead. That
    is meant for draft models; what its scheduler admits it cuts to the context's end anyway.
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
    """Gives each draft its row's temperature, top-k and top-p with torch alone.

    On a CPU vLLM writes them to a copy that is thrown away, so that drafts are judged by whatever was in memory.
    """
    import torch
    import vllm.v1.sample.rejection_sampler as sampler

    def expand(x: Any, cu_num_tokens: Any, num_tokens: int, replace_from: int = 0, replace_to: int = 0) -> Any:
        counts = torch.diff(cu_num_tokens.to(torch.int64), prepend=torch.zeros(1, dtype=torch.int64))
        return x.masked_fill(x == replace_from, replace_to).repeat_interleave(counts, output_size=num_tokens)

    sampler.expand_batch_to_tokens = expand
