"""Runs one vLLM engine in this process and measures its steps.

The engine runs in the measuring process, so the times are those of vLLM's core. On GPUs the product runs the core in a
separate process (decision 0003). These figures do not include the messages between the two processes, which overlap
with the device's work.
"""

# pyright: reportPrivateUsage=false

import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from openseer_core.manifest.job import Sampling
from openseer_worker.engine import EngineRequest
from openseer_worker.gpu_bench.fixed import GIVEN
from openseer_worker.gpu_bench.plan import DRAFTS, EXACTNESS, NGRAM, SUFFIX
from openseer_worker.gpu_bench.ways import Order, engine_arguments_of
from openseer_worker.vllm.building import make_core

_TASKS = ("generate",)
_EMPTY_STEPS = 8
"""Number of steps after an abort in which an asynchronous engine completes its pending work."""
_MOST_SILENT = 200
"""Limit of consecutive steps without output."""


@dataclass
class Timed:
    """Measured steps: milliseconds of each step, and the sums of tokens and of verified draft tokens."""

    step_ms: list[float]
    tokens: int
    drafted: int


class SteppedEngine:
    """One vLLM engine, which the constructor builds. Raises vLLM's errors."""

    def __init__(self, order: Order) -> None:
        self._on_cpu = order.on_cpu
        self._core, config, self._inputs = make_core(engine_arguments_of(order), in_process=True)
        self._running: set[str] = set()
        self._added = 0
        self.steps = 0
        self.vocabulary: int = config.model_config.get_vocab_size()
        self.context_tokens: int = config.model_config.max_model_len
        self.kv_tokens: int = (config.cache_config.num_gpu_blocks - 1) * config.cache_config.block_size
        self.asynchronous = bool(config.scheduler_config.async_scheduling)
        worker: Any = self._core.engine_core.model_executor.driver_worker.worker
        self.runner = "V2" if ".worker.gpu." in type(worker.model_runner).__module__ else "V1"
        if order.way in (DRAFTS, EXACTNESS):
            from openseer_worker.vllm.drafting.calls import DraftCalls

            DraftCalls(self._core).start()
        elif order.way in (NGRAM, SUFFIX) and order.on_cpu:
            # Without this patch vLLM's own draft methods would verify with wrong temperatures (drafting/proposer.py).
            from openseer_worker.vllm.drafting.proposer import _mend_sampling

            _mend_sampling()

    def add(self, prompts: Sequence[list[int]], sampling: Sampling, *, only_token: int | None = None) -> list[str]:
        """Adds a request, in its own group, for each prompt; returns the keys. `only_token`: the only token that may be
        sampled, so that the text repeats it."""
        from vllm.inputs.engine import tokens_input

        from openseer_worker.vllm import arguments as vllm_arguments

        keys: list[str] = []
        for prompt in prompts:
            key = f"bench-{self._added}"
            self._added += 1
            request = EngineRequest(key, key, 0, prompt, [], sampling.max_tokens, sampling)
            params = vllm_arguments.sampling_params(request, sampling.max_tokens, log_probabilities=True)
            if only_token is not None:
                params.allowed_token_ids = [only_token]
            sent: Any = self._inputs.process_inputs(key, tokens_input(prompt), params, _TASKS)
            sent.external_req_id = key
            self._core.add_request(sent)
            self._running.add(key)
            keys.append(key)
        return keys

    def step(self) -> Any:
        """Makes steps until there are outputs; returns them."""
        for _ in range(_MOST_SILENT):
            found = self._core.get_output()
            if found.outputs:
                self.steps += 1
                return found
        raise RuntimeError(f"no output in {_MOST_SILENT} steps")

    def fill(self) -> None:
        """Makes steps until each request has its first token."""
        waiting = set(self._running)
        while waiting:
            waiting -= {output.request_id for output in self.step().outputs if output.new_token_ids}

    def timed(self, warm: int, steps: int) -> Timed:
        """Measures `steps` steps after `warm` unmeasured ones; no request may end in these steps."""
        for _ in range(warm):
            self.step()
        times: list[float] = []
        tokens = drafted = 0
        before = time.perf_counter()
        for _ in range(steps):
            found = self.step()
            now = time.perf_counter()
            times.append(round((now - before) * 1e3, 4))
            before = now
            tokens += sum(len(output.new_token_ids) for output in found.outputs)
            stats = found.scheduler_stats and found.scheduler_stats.spec_decoding_stats
            drafted += stats.num_draft_tokens if stats else 0
        return Timed(times, tokens, drafted)

    def play(self, keys: Sequence[str]) -> dict[str, list[int]]:
        """Makes steps until these requests, which must be all, have ended; returns their tokens."""
        texts: dict[str, list[int]] = {key: [] for key in keys}
        running = set(keys)
        while running:
            for output in self.step().outputs:
                texts[output.request_id] += output.new_token_ids
                if output.finish_reason is not None:
                    running.discard(output.request_id)
        self._running.clear()
        return texts

    def clear(self) -> None:
        """Drops all requests."""
        self._core.abort_requests(list(self._running))
        self._running.clear()
        for _ in range(_EMPTY_STEPS):
            self._core.get_output()

    def draft(self, way: str, length: int) -> bool:
        """Sets the number of draft tokens per request; returns False if this way cannot change it."""
        GIVEN.length = length
        if way == NGRAM:
            lookup: list[int] | None = self._core.engine_core.scheduler.dynamic_sd_lookup
            if lookup is None:
                return False
            lookup[:] = [length] * len(lookup)
        return True

    def reset_peak(self) -> None:
        """Resets the peak of memory use on a GPU; does nothing on a CPU."""
        if not self._on_cpu:
            import torch

            torch.cuda.reset_peak_memory_stats()

    def peak_bytes(self) -> int:
        """Returns the peak of memory use: on a GPU torch's allocations since the reset, on a CPU the process's since
        its start."""
        if self._on_cpu:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        import torch

        return int(torch.cuda.max_memory_allocated())
