"""vLLM's scheduler, but a request that comes in is not filled up with drafts that are none.

vLLM pads a request that goes on with one token to the length of the longest draft, so that all rows of a step are
alike. Of that nothing is gained here, where rows have drafts of different lengths anyway; and one such row is enough to
make log-probabilities take the memory of the longest draft for all rows (see `proposer.longest_draft`). A schedule of
drafts by batch size turns it off as well, but the V1 runner gives up its full CUDA graphs for one
(vllm/config/vllm.py, `_maybe_override_dynamic_sd_cudagraph_mode`).
"""

from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler


class DraftScheduler(Scheduler):
    """The scheduler of an engine that drafts."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The longest draft by the number of rows, the same for all: with such a table nothing is padded.
        self.dynamic_sd_lookup = [self.num_spec_tokens] * (self.scheduler_config.max_num_seqs + 1)
