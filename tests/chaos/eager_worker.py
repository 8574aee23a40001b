"""A worker that fetches every block of its pool, even if computing is faster, and soon after failures.

Computing is nearly always faster for the tiny model, and a run is too short for the usual pause after a failure.
"""

from openseer_worker.kv_pool import breaker, rates
from openseer_worker.main import main
from openseer_worker.startup import end_process
from openseer_worker.vllm.kv_pool import arguments

OUT_SECONDS = 0.5
"""Time in which a pool that failed is not used, in seconds."""

if __name__ == "__main__":
    rates.TRIAL_EVERY, breaker.OUT_SECONDS, arguments.WORTH_TOKENS = 1, OUT_SECONDS, 1
    end_process(main())
