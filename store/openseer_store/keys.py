"""The key space of a job.

Every key starts with the job's prefix, a hash tag: a job occupies one slot of a Redis Cluster, and an ACL can restrict
a user to one job. The Lua verbs build the keys; a test compares them with this table.
"""

PREFIX = "{{openseer:{namespace}/{job}}}"
STORE = ":store"

KEY_SPACE: dict[str, str] = {
    ":store": "hash: epoch, run_id of the server process that it belongs to, base (numbers of the epoch are above it), "
    "and the job's clock (core's JobClock): job_time, wall (the server's time then), grace_until, longest_lease; "
    "max_losses of the last claim. All times in the store are job time. It begins as wall time and falls behind with "
    "each stall; it never catches up, because leases would expire that no worker could have renewed",
    ":counters": "hash: batches (number of the latest), opened (number of opened batches), inflight (leased requests), "
    "idle_seconds and busy_seconds (of all workers so far), worker:<name> (its leased requests), suspects:<name> "
    "(its leased suspects), waiting:<n>:<version>:<lane> (waiting requests of a lane; n is the "
    "version's length). Counts of zero are absent",
    ":batches": "sorted set: opened batches with data, by number",
    ":key:<key>": "string: number of the batch that was opened with this idempotency key",
    ":batch:<batch>": "hash: version, spec (JSON), key, counts (core's BatchProgress), times (core's BatchRecord), "
    "journal (entries so far), acknowledged, swept (entries up to here are deleted), sealed, forgotten, erased "
    "(requests of the first group, while it is deleted), ordinal (place in the order of opening), submitted (groups so "
    "far, without carried ones), expected (submitted ones when it was sealed), judged (number of the latest verdicts), "
    "takes_parked (until the carried groups have been moved here). Batch 0 is the driver's; -1 holds carried groups",
    ":batch:<batch>:groups": "list of groups in the order of submission",
    ":batch:<batch>:results": "stream, ids <number>-0: finished requests and ends of groups, msgpack",
    ":batch:<batch>:journal": "stream, ids <number>-0: every event of every request, msgpack",
    ":batch:<batch>:verdicts": "hash: 1 or 0 by name of a group, from the trainer",
    ":batch:<batch>:judged": "hash: number of that verdict by name of a group",
    ":orders": "hash: revision, orders (JSON): the fleet spec (core's FleetSpec), written (its revision in that text)",
    ":group:<group>": "string, msgpack: the fields of a group that verbs use; GROUP in lua/_shared.lua names them",
    ":spec:<group>": "string: the submitted group as clients read it (codec.py)",
    ":heads:<n>:<version>:<lane>": "sorted set: groups that wait in a lane, by score; n is the version's length",
    ":sized:<size>:<n>:<version>:<lane>": "sorted set: those of them whose first waiting request has 2^size tokens or "
    "more, but fewer than twice as many, prompt included; by score",
    ":suspects:<n>:<version>:<lane>": "sorted set: requests of a lane that wait as suspects, by score; they are in no "
    ":waiting:",
    ":calls:<n>:<version>:<lane>": "list: an empty string for each worker that is called to a lane in which requests "
    "wait; absent without waiting requests",
    ":waiting:<n>:<lane>:<group>": "sorted set: indexes (four digits) of waiting requests that are not suspects, by "
    "score within the group; n is the lane's length",
    ":request:<request>": "string, msgpack, from the first lease on: state, leases, losses, fence, holder, …",
    ":tokens:<request>": "string: int32 token ids, appended",
    ":logprobs:<request>": "string: float32 log-probabilities, appended",
    ":chunks:<request>": "list: past leases, msgpack",
    ":earlier:<digest>": "list: complete responses to the prompt of that digest, newest first: int32 token ids, of "
    "long ones the first. Outlives batches; expires 48 hours after the last was added",
    ":earlier_lengths:<digest>": "list: lengths of those responses in tokens",
    ":deadlines": "sorted set: leased requests by deadline",
    ":claiming": "sorted set: workers that claim, by the time of their last call",
    ":limits": "sorted set: the same workers, by their limit of tokens of one request",
    ":free": "sorted set: those of them whose last claim found nothing, by their tokens per second of a response, "
    "negated",
    ":in_vain": "hash: of claiming workers, the versions of their last claim that found nothing, msgpack",
    ":claimed:<name>": "string, msgpack: holder and number of the last claim that leased anything, and its leases",
    ":workers": "set: names of registered workers",
    ":lost:<name>": "set: requests whose leases of that worker expired without evidence of its death; deleted with "
    "its next heartbeat, or after a day",
    ":worker:<name>": "hash: boot, before (past boots, the latest first), seen_at, info (codec.py), idle and busy "
    "(seconds of this boot)",
    ":drains": "set: names of workers that are asked to drain",
    ":purging": "string: the job is being purged; expires",
    ":driver": "hash: boot and fence of the present one",
}
"""Part after the prefix → content. <group> is "<batch>/<name>", <request> is "<group>/<index>"."""


def prefix(namespace: str, job: str) -> str:
    """The prefix of all keys of a job."""
    return PREFIX.format(namespace=namespace, job=job)
