"""The key space of a job.

Every key starts with the job's prefix, which is a hash tag. So a job occupies one slot of a Redis Cluster, and an ACL
can restrict a user to one job. The Lua verbs build the keys; a test compares them with this table.
"""

PREFIX = "{{openseer:{namespace}/{job}}}"
STORE = ":store"

KEY_SPACE: dict[str, str] = {
    ":store": "hash: epoch, run_id (of the server process that began the epoch), base (all numbers of the epoch are "
    "larger), the job's clock (core's JobClock): job_time, wall (the server's time at job_time), grace_until, "
    "longest_lease; max_losses of the last claim. All times in the store are job time. Job time begins as wall time "
    "and falls behind it with each stall. It never catches up: if it did, leases would expire that no worker could "
    "have renewed",
    ":counters": "hash: batches (number of the latest batch), opened (count of opened batches), inflight (count of "
    "leased requests), idle_seconds and busy_seconds (sums over all workers), worker:<name> (count of the worker's "
    "leased requests), suspects:<name> (count of its leased suspects), waiting:<n>:<version>:<lane> (count of the "
    "lane's waiting requests; n is the version's length). A count of zero is absent",
    ":batches": "sorted set: opened batches with data, by number",
    ":key:<key>": "string: number of the batch that was opened with this idempotency key",
    ":batch:<batch>": "hash: version, spec (JSON), key, counts (core's BatchProgress), times (core's BatchRecord), "
    "journal (count of its entries), acknowledged, swept (results up to this number are deleted), sealed, forgotten "
    "(the deletion has begun), erased (count of deleted requests of the group that is being deleted), ordinal (place "
    "in the order of opening), submitted (count of groups, without carried ones), expected (`submitted` when the batch "
    "was sealed), judged (number of the latest call of `judge`), takes_parked (present until the parked groups have "
    "been moved here). Batch 0 is the driver's; batch -1 contains the parked groups",
    ":batch:<batch>:groups": "list: groups in the order of submission",
    ":batch:<batch>:results": "stream, ids <number>-0: finished requests and ends of groups, msgpack",
    ":batch:<batch>:journal": "stream, ids <number>-0: every event of every request, msgpack",
    ":batch:<batch>:verdicts": "hash: by name of a group, the trainer's latest verdict: 1 (valid) or 0",
    ":batch:<batch>:judged": "hash: by name of a group, the number of its latest verdict",
    ":orders": "hash: the fleet spec (core's FleetSpec): revision, orders (the fleet spec as JSON; the "
    "field is named after the term of an earlier release), written (the revision in that JSON)",
    ":group:<group>": "string, msgpack: the fields of a group that verbs use; GROUP in lua/_shared.lua names them",
    ":spec:<group>": "string: the submitted group in the form that clients read (codec.py)",
    ":heads:<n>:<version>:<lane>": "sorted set: groups that wait in a lane, by score; n is the version's length",
    ":sized:<size>:<n>:<version>:<lane>": "sorted set: groups that wait in a lane and whose first waiting request has "
    "a context (prompt and tokens) of 2^size to 2^(size+1) - 1 tokens, by score; the largest size, 24, has no upper "
    "limit",
    ":suspects:<n>:<version>:<lane>": "sorted set: suspects that wait in a lane, by score; they are not in `:waiting:`",
    ":calls:<n>:<version>:<lane>": "list: one empty string for each pending call of a worker to the lane, at most two; "
    "absent if no request waits there",
    ":waiting:<n>:<lane>:<group>": "sorted set: indexes (four digits) of waiting requests that are not suspects, by "
    "score within the group; n is the lane's length",
    ":request:<request>": "string, msgpack: state, leases, losses, fence, holder, …; absent before the first lease",
    ":tokens:<request>": "string: int32 token ids, appended",
    ":logprobs:<request>": "string: float32 log-probabilities, appended",
    ":chunks:<request>": "list: past leases, msgpack",
    ":earlier:<digest>": "list: complete responses to the prompt of that digest, newest first, as int32 token ids: at "
    "most the first 32,768 of each. Deleting a batch does not delete them; the list expires 48 hours after the last "
    "addition",
    ":earlier_lengths:<digest>": "list: full lengths of those responses, in tokens",
    ":deadlines": "sorted set: leased requests by deadline",
    ":claiming": "sorted set: claiming workers, by the time of their last claim or heartbeat",
    ":limits": "sorted set: claiming workers, by their token limit of one request (prompt and response)",
    ":free": "sorted set: claiming workers whose last claim found nothing, by their pace (tokens per second of "
    "one response), negated",
    ":in_vain": "hash: by name of a claiming worker, the versions (msgpack) of its last claim that found nothing",
    ":claimed:<name>": "string, msgpack: holder, number and leases of the worker's last claim that leased a request",
    ":workers": "set: names of registered workers",
    ":lost:<name>": "set: requests of which the worker lost a lease by expiry, without evidence of its death; deleted "
    "with its next heartbeat, or a day after the last expiry",
    ":worker:<name>": "hash: boot, before (past boots, the latest first), seen_at, info (the heartbeat, codec.py), "
    "idle and busy (seconds of this boot)",
    ":drains": "set: names of workers that are asked to drain",
    ":purging": "string: present while the job is being purged; expires",
    ":driver": "hash: boot and fence of the job's present driver",
}
"""Part after the prefix → content. <group> is "<batch>/<name>", <request> is "<group>/<index>"."""


def prefix(namespace: str, job: str) -> str:
    """The prefix of all keys of a job."""
    return PREFIX.format(namespace=namespace, job=job)
