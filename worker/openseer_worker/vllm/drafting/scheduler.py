"""vLLM's scheduler without its padding of new requests with empty drafts.

vLLM pads a request that continues with one token to the length of the longest draft, so that all rows of a step have
equal lengths. Here rows have drafts of different lengths anyway, and one padded row makes log-probabilities take the
memory of the longest draft for all rows (see `proposer.longest_draft`). A schedule of drafts by batch size turns
padding off as well, but then the V1 runner uses no full CUDA graphs
(vllm/config/vllm.py, `_maybe_override_dynamic_sd_cudagraph_mode`).
"""

from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler


class DraftScheduler(Scheduler):
    """The scheduler of an engine that drafts."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The longest draft by the number of rows, the same for all: with such a table vLLM pads no row.
        self.dynamic_sd_lookup = [self.num_spec_tokens] * (self.scheduler_config.max_num_seqs + 1)
