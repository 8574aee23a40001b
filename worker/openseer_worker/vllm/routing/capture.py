"""Captures the experts of each position inside vLLM, and keeps their rows until the engine reads them.

vLLM's own capturer fills a buffer in each step. After the step, the rows of the needed positions of all requests are
copied together. A position is captured once its token is final, without the rows of rejected drafts.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

ROWS_FROM = "rows_from"
"""Key, in a request's extra arguments, of the first position whose row is needed; None: no row is needed."""
_NEVER = np.iinfo(np.int64).max

RowsOf = tuple[str, int, bytes]
"""A request's key, a position, and the rows from this position on, as bytes; sent from vLLM's process to the engine."""


class RowCapture:
    """Captures the routed experts of one rank. `config`: the VllmConfig."""

    def __init__(self, config: Any) -> None:
        self._config = config
        self._capturer: Any = None
        self._runner: Any = None
        # For each row of the step: the first position that the step computes, and the number of positions.
        self._starts = self._counts = np.zeros(0, np.int64)
        self._ids: list[str] = []
        self._firsts = self._numbers = np.zeros(0, np.int64)
        self._known: dict[str, int] = {}
        self._next = 0
        self._kept: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]] = []

    def bind(self, model: Any) -> None:
        """Binds the capturer to the model, on every rank, before the capture of CUDA graphs. Raises ValueError for a
        model that vLLM cannot bind."""
        from vllm.model_executor.layers.fused_moe.routed_experts_capturer import (
            RoutedExpertsCapturer,
            bind_routed_experts_capturer,
        )

        self._capturer = RoutedExpertsCapturer(self._config.scheduler_config.max_num_batched_tokens, self._config)
        bind_routed_experts_capturer(model, self._capturer)

    def attach(self, runner: Any) -> None:
        """Starts to note the positions that each step of the runner computes."""
        prepare = runner._prepare_inputs

        def prepare_and_note(scheduled: Any, counts: NDArray[np.int32], *more: Any, **others: Any) -> Any:
            rows = len(counts)
            self._starts = runner.input_batch.num_computed_tokens_cpu[:rows].astype(np.int64)
            self._counts = counts.astype(np.int64)
            return prepare(scheduled, counts, *more, **others)

        runner._prepare_inputs = prepare_and_note
        self._runner = runner

    def note(self, known: NDArray[np.int32]) -> None:
        """Copies the rows of a step. `known`: int32 [requests], tokens of each request after the step, with the sampled
        tokens."""
        if self._runner is None:
            return
        ids, counts, starts = self._runner.input_batch.req_ids, self._counts, self._starts
        if ids != self._ids:
            self._match(ids)
        # The next step computes the row of the last token.
        ends = np.minimum(starts + counts, known[: len(ids)].astype(np.int64) - 1)
        wanted = ends > np.maximum(starts, self._firsts)
        if not wanted.any():
            return
        total = int(counts.sum())
        rows = self._capturer.snapshot_routing_data(total).cpu().numpy()
        if total == len(ids) and wanted.all():  # one token per request, without drafts, as in most steps
            self._kept.append((self._numbers, starts, rows))
            return
        places = np.repeat(np.arange(len(ids)), counts)
        positions = np.arange(total) - np.repeat(np.cumsum(counts) - counts - starts, counts)
        kept = (positions < ends[places]) & (positions >= self._firsts[places])
        self._kept.append((self._numbers[places][kept], positions[kept], rows[kept]))

    def take(self) -> list[RowsOf]:
        """Returns all rows since the last call, as stretches of adjacent positions, per request in order of steps."""
        if not self._kept:
            return []
        numbers, positions, rows = (np.concatenate(parts) for parts in zip(*self._kept, strict=True))
        self._kept = []
        order = np.argsort(numbers, kind="stable")
        numbers, positions, rows = numbers[order], positions[order], rows[order]
        cuts = np.flatnonzero((np.diff(numbers) != 0) | (np.diff(positions) != 1)) + 1
        keys = {number: key for key, number in self._known.items()}
        found: list[RowsOf] = []
        for begin, end in zip([0, *cuts.tolist()], [*cuts.tolist(), len(numbers)], strict=True):
            found.append((keys[int(numbers[begin])], int(positions[begin]), rows[begin:end].tobytes()))
        self._forget()
        return found

    def _forget(self) -> None:
        """Removes requests that have ended, after their rows were returned."""
        gone = [key for key in self._known if key not in self._runner.requests]
        for key in gone:
            del self._known[key]

    def _match(self, ids: list[str]) -> None:
        firsts: list[int] = []
        numbers: list[int] = []
        for key in ids:
            sampling = self._runner.requests[key].sampling_params
            extra = (sampling.extra_args if sampling is not None else None) or {}
            first = extra.get(ROWS_FROM)
            firsts.append(_NEVER if first is None else int(first))
            if key not in self._known:
                self._known[key] = self._next
                self._next += 1
            numbers.append(self._known[key])
        self._firsts, self._numbers = np.array(firsts, np.int64), np.array(numbers, np.int64)
        self._ids = ids.copy()
