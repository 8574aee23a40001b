"""Limits of one call to the store: Redis runs one script at a time, so a long one makes every worker wait.

Each limit keeps a call below 5 ms of an ordinary core. The next call continues with the rest. A single group is moved,
given another version or freed in one call, whatever its size: tens of milliseconds for a group of 1,024 requests.
"""

HEAD_WINDOW = 16
"""Limit of groups at the front of a lane that do not fit: after it a claim goes by size, with the same limit each."""
CLAIM_REQUESTS = 128
"""Limit of requests that one claim leases."""
CLAIM_BYTES = 2 * 2**20
"""Size of tokens and prompts, in bytes, after which a claim leases no more."""
SUBMIT_GROUPS = 64
"""Limit of groups in one call of a submission."""
SUBMIT_REQUESTS = 2048
SUBMIT_BYTES = 2**20
STEP_REQUESTS = 256
"""Limit of requests that one call ends, frees or gives another version; a last group that cannot be divided may
exceed it."""
MOVE_REQUESTS = 96
"""Number of requests after which a call that moves groups begins no other group."""
STEP_BYTES = 2**20
"""Number of bytes after which a call that moves groups copies no more."""
STEP_GROUPS = 64
"""Limit of groups in the arguments of one call."""
STEP_NAMES = 512
"""Limit of verdicts in one call."""
REPLY_BYTES = 4 * 2**20
"""Size of a reply, in bytes, after which a reading verb adds no more."""
