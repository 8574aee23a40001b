"""vLLM's scheduler without its padding of new requests with empty drafts.

vLLM pads a new request that has one token to compute to the length of the longest draft, so that all rows of a step
have equal lengths. Here rows have drafts of different lengths anyway, and with one padded row the log-probabilities of
all rows need the memory of the longest draft (see `proposer.longest_draft`). A configured schedule of drafts by batch
size would also turn padding off, but then the V1 runner uses no full CUDA graphs
(vllm/config/vllm.py, `_maybe_override_dynamic_sd_cudagraph_mode`).
"""

from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler


class DraftScheduler(Scheduler):
    """The scheduler of an engine that drafts."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The longest draft for each number of rows, always the same: with such a table vLLM pads no row.
        self.dynamic_sd_lookup = [self.num_spec_tokens] * (self.scheduler_config.max_num_seqs + 1)
