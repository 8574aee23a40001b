"""Limits of one call to the store: Redis runs one script at a time, so a long call makes every worker wait.

Each limit keeps a call below 5 ms on an ordinary core. The exception: one group is always moved, given another version
or freed in one call, which takes tens of milliseconds for 1,024 requests. Callers repeat a call until nothing is left.
"""

HEAD_WINDOW = 16
"""A claim examines at most this many groups that do not fit, in the order of scores. Then it examines the size classes
that fit, again at most this many such groups of each class."""
CLAIM_REQUESTS = 128
"""Limit of requests that one claim leases."""
CLAIM_BYTES = 2 * 2**20
"""Size of tokens and prompts, in bytes, after which a claim leases no more."""
SUBMIT_GROUPS = 64
"""Limit of groups in one call of a submission."""
SUBMIT_REQUESTS = 2048
"""Number of requests after which a call of a submission takes no further group."""
SUBMIT_BYTES = 2**20
"""Size of the packed groups, in bytes, after which a call of a submission takes no further group."""
STEP_REQUESTS = 256
"""Limit of requests that one call ends, frees or gives another version. The last group may exceed it, because some
verbs do not divide a group."""
MOVE_REQUESTS = 96
"""Number of requests after which a call of `carry`, which moves groups to another batch, begins no further group."""
STEP_BYTES = 2**20
"""Size of copied tokens and log-probabilities, in bytes, after which a call of `carry` copies no more."""
STEP_GROUPS = 64
"""Limit of groups that one call ends, moves or gives another version."""
STEP_NAMES = 512
"""Limit of verdicts that one call stores, and of group names that one call reads."""
REPLY_BYTES = 4 * 2**20
"""Size of a reply, in bytes, after which a reading verb adds no more."""
