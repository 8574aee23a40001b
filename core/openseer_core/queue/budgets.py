"""How much one call to the store may do: Redis runs one script at a time, so a long one makes every worker wait.

Each budget holds a call under 5 ms of an ordinary core. What it leaves is done by the next call. One group is moved,
given another version and freed in one call, whatever its size: tens of milliseconds for one of 1,024 requests.
"""

HEAD_WINDOW = 16
"""After so many groups at the front of a lane that do not fit, a claim goes by size; it leaves each size likewise."""
CLAIM_REQUESTS = 128
"""Most requests that one claim leases."""
CLAIM_BYTES = 2 * 2**20
"""A claim leases no more once its tokens and prompts take so many bytes."""
SUBMIT_GROUPS = 64
"""Most groups in one call of a submission."""
SUBMIT_REQUESTS = 2048
SUBMIT_BYTES = 2**20
STEP_REQUESTS = 256
"""Most requests that one call ends, frees or gives another version; of a last group that cannot be divided, more."""
MOVE_REQUESTS = 96
"""A call that moves groups begins none after so many requests."""
STEP_BYTES = 2**20
"""A call that moves groups copies nothing after so many bytes."""
STEP_GROUPS = 64
"""Most groups that one call is given."""
STEP_NAMES = 512
"""Most verdicts in one call."""
REPLY_BYTES = 4 * 2**20
"""A reading verb stops adding once its answer holds so much."""
