"""The key space of a job, on one page.

Every key starts with the job's prefix, a hash tag: a job sits on one slot of a Redis Cluster, and an ACL can give one
job to one user. The Lua verbs make the keys; a test holds this page against them.
"""

PREFIX = "{{openseer:{namespace}/{job}}}"
STORE = ":store"

KEY_SPACE: dict[str, str] = {
    ":store": "hash: epoch, run_id of the server process that it belongs to, base (numbers of the epoch are above it), "
    "and the job's clock (core's JobClock): job_time, wall (the server's time then), grace_until, longest_lease; "
    "max_losses of the last claim. All times in the store are job time. It begins as wall time and falls behind with "
    "each stall; it never catches up, as that would expire what nobody could renew",
    ":counters": "hash: batches (number of the latest), opened (how many batches were), inflight (leased requests), "
    "idle_seconds and busy_seconds (of all workers so far), worker:<name> (its leased requests), suspects:<name> "
    "(those of them that lost workers before), waiting:<n>:<version>:<lane> (waiting requests of a lane; n is the "
    "version's length). Counts of zero are not there",
    ":batches": "sorted set: opened batches whose data are there, by number",
    ":key:<key>": "string: number of the batch that was opened with this idempotency key",
    ":batch:<batch>": "hash: version, spec (JSON), key, counts (core's BatchProgress), times (core's BatchRecord), "
    "journal (entries so far), acknowledged, swept (entries up to here are gone), sealed, forgotten, erased (requests "
    "of the first group, while it is deleted), ordinal (place in the order of opening), submitted (groups so far, "
    "without carried ones), expected (submitted ones when it was sealed), judged (number of the latest verdicts), "
    "takes_parked (until the carried groups are here). "
    "Batch 0 is the driver's; -1 holds carried groups",
    ":batch:<batch>:groups": "list of groups in the order of submission",
    ":batch:<batch>:results": "stream, ids <number>-0: finished requests and ends of groups, msgpack",
    ":batch:<batch>:journal": "stream, ids <number>-0: every event of every request, msgpack",
    ":batch:<batch>:verdicts": "hash: 1 or 0 by name of a group, from the trainer",
    ":batch:<batch>:judged": "hash: number of that verdict by name of a group",
    ":orders": "hash: revision, orders (JSON): what the fleet follows (core's FleetSpec), written (its "
    "revision in that text)",
    ":group:<group>": "string, msgpack: what the verbs need of a group; GROUP in lua/_shared.lua names the places",
    ":spec:<group>": "string: the submitted group as clients read it (codec.py)",
    ":heads:<n>:<version>:<lane>": "sorted set: groups that wait in a lane, by score; n is the version's length",
    ":sized:<size>:<n>:<version>:<lane>": "sorted set: those of them whose first waiting request has 2^size tokens or "
    "more, but not twice as many, prompt included; by score",
    ":suspects:<n>:<version>:<lane>": "sorted set: requests of a lane that wait as suspects, by score; they are in no "
    ":waiting:",
    ":calls:<n>:<version>:<lane>": "list: an empty string for each worker that is called to a lane in which requests "
    "wait; none where nothing does",
    ":waiting:<n>:<lane>:<group>": "sorted set: indexes (four digits) that wait and are no suspects, by score within "
    "the group; n is the lane's length",
    ":request:<request>": "string, msgpack, from the first lease on: state, leases, losses, fence, holder, …",
    ":tokens:<request>": "string: int32 token ids, appended",
    ":logprobs:<request>": "string: float32 log-probabilities, appended",
    ":chunks:<request>": "list: past leases, msgpack",
    ":earlier:<digest>": "list: whole responses to the prompt of that digest, the newest first: int32 token ids, of "
    "long ones the first. Outlives batches; goes 48 hours after the last was added",
    ":earlier_lengths:<digest>": "list: how many tokens those responses have",
    ":deadlines": "sorted set: leased requests by deadline",
    ":claiming": "sorted set: workers that claim, by when they were last seen",
    ":limits": "sorted set: the same workers, by how many tokens one request may have there",
    ":free": "sorted set: those of them whose last claim found nothing, by the tokens per second that a response gains "
    "there, negated",
    ":in_vain": "hash: of workers that claim, the versions that they last claimed requests of and found none, msgpack",
    ":claimed:<name>": "string, msgpack: holder and number of the last claim that leased anything, and its leases",
    ":workers": "set: names of registered workers",
    ":lost:<name>": "set: requests whose leases of that worker expired while nobody knew whether it died; gone with "
    "its next heartbeat, or after a day",
    ":worker:<name>": "hash: boot, before (past boots, the latest first), seen_at, info (codec.py), idle and busy "
    "(seconds of this boot)",
    ":drains": "set: names of workers that are asked to drain",
    ":purging": "string: the job is being purged; expires",
    ":driver": "hash: boot and fence of the present one",
}
"""What follows the prefix → what is there. <group> is "<batch>/<name>", <request> is "<group>/<index>"."""


def prefix(namespace: str, job: str) -> str:
    """The prefix of all keys of a job."""
    return PREFIX.format(namespace=namespace, job=job)
