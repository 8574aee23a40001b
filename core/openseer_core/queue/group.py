"""A prompt group: its specification, the facts known while it runs, and its place in the two-level queue.

Problem: a finished response changes the expected length of all its waiting siblings. One flat queue of requests would
need one write per sibling. And when a request is given back, the store (Lua) would need the policy (Python) to compute
its place.

Idea: the queue has two levels. Groups are sorted by score, and within a group its waiting requests are sorted. A policy
gives a group a `Priority(base, slope, probe)` and each request a `bias`; the store computes the scores from them:

    request: bias + slope * generated tokens
    group:   `probe` + generated tokens of the group's first request, while that request waits and `probe` is not None
             base + the lowest score of its waiting requests, otherwise

Example: slope 1, bias 0. Group a has base -12000, and requests with 500 and 2000 tokens wait: its score is -11500.
Group b has base -10500, and a request without tokens waits: its score is -10500. A claim of three requests leases a's
request with 500 tokens (a's score becomes -10000), b's request (-10500), and a's other request (-10000). If, before
this claim, a sibling in group b finishes and the policy gives b the base -24000, one update moves all of b's waiting
requests ahead of a's.

So a finish costs two sorted-set updates (score and size class), whatever the size of the group, and the store places a
returned request without the policy. The price: a policy can choose only base, slope, probe and biases. Source:
docs/decisions/0002; the scores themselves: policy.py.
"""

from dataclasses import dataclass, replace
from hashlib import blake2b

from openseer_core.ids import GroupId

SHARED_LANE = ""
"""The lane that every worker claims from. Every other lane belongs to one worker; its name is that worker's index."""
CONTENT_BYTES = 16
"""Digest size, in bytes, of a group's content. The digest distinguishes a repeated submission from another group of the
same name."""


@dataclass(frozen=True, slots=True)
class Priority:
    """The output of a policy for one group; the queue computes the group's score from it (lowest first).

    While the group's first request waits and `probe` is not None: `probe` + generated tokens of that request.
    Otherwise: `base` + the minimum of bias + `slope` × generated tokens over the group's waiting requests.
    So the store can place a returned request without a call of the policy.
    """

    base: float
    slope: float = 0.0
    probe: float | None = None

    def request_score(self, bias: float, generated: int, *, is_probe: bool) -> float:
        """The score that the request would have in the queue, in the unit of the group's score."""
        if is_probe and self.probe is not None:
            return self.probe + generated
        return self.base + bias + self.slope * generated


@dataclass(frozen=True, slots=True)
class GroupView:
    """The facts known of a group at one `revision`; the only input of a policy.

    `ordinal`: the group's place in its batch. `longest_*`: tokens of the longest response of a kind, 0 if unknown;
    `longest_earlier`: among the responses of earlier batches to the same prompt. `enqueued_at`: seconds of the store's
    clock. `tier`: the tier of its batch's priority (policy.TIERS), + RESERVE for a reserve group; lowest first.
    `batch_ordinal`: place, in the order of opening, of the batch that it was submitted to; kept when it is carried
    over.
    """

    id: GroupId
    revision: int
    ordinal: int
    size: int
    max_tokens: int
    enqueued_at: float
    finished: int = 0
    longest_finished: int = 0
    longest_running: int = 0
    tier: int = 0
    longest_earlier: int = 0
    batch_ordinal: int = 0

    @property
    def is_over(self) -> bool:
        """Whether all requests of the group have finished their latest turn."""
        return self.finished >= self.size

    def with_finish(self, length: int) -> "GroupView":
        """The view after one more request of the group finished with `length` tokens."""
        return replace(
            self,
            revision=self.revision + 1,
            finished=self.finished + 1,
            longest_finished=max(self.longest_finished, length),
        )

    def with_running(self, length: int) -> "GroupView":
        """The view after a running request has reached `length` tokens."""
        return replace(self, revision=self.revision + 1, longest_running=max(self.longest_running, length))


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """A group as it is submitted: all data that a worker needs to generate its responses.

    `prompt`: int32 token ids. `biases` (see policy.py) and `lanes`: one per request.
    `enqueued_at`: seconds of the store's clock; `priority` was computed from it. `lengths`: forced response lengths in
    tokens, one per request, for benchmarks and simulations; otherwise empty. `sampling` and `metadata`: JSON. `seeds`:
    one per request, in place of the seed of the sampling parameters, or empty. `history`: digest of the prompt, the key
    under which the store keeps the newest `history_size` complete responses for groups of later batches; "" for none.
    `longest_earlier`: tokens of the longest response under that key at submission.
    `ordinal`, `tier`, `batch_ordinal`: see GroupView.
    """

    id: GroupId
    version: str
    ordinal: int
    prompt: bytes
    max_tokens: int
    biases: tuple[float, ...]
    lanes: tuple[str, ...]
    priority: Priority
    enqueued_at: float
    lengths: tuple[int, ...] = ()
    sampling: str = "{}"
    metadata: str = "{}"
    tier: int = 0
    seeds: tuple[int | None, ...] = ()
    history: str = ""
    history_size: int = 0
    longest_earlier: int = 0
    batch_ordinal: int = 0

    def __post_init__(self) -> None:
        if not self.biases or len(self.biases) != len(self.lanes):
            raise ValueError(f"group {self.id}: {len(self.biases)} biases and {len(self.lanes)} lanes")

    @property
    def size(self) -> int:
        """The number of requests."""
        return len(self.biases)

    def content(self) -> str:
        """Digest of the submitter's data, in hex, without the time of submission and the place in the queue.

        A group may be submitted again under its name only with equal content.
        """
        given = (self.max_tokens, self.size, self.sampling, self.metadata, self.lengths, self.seeds)
        return blake2b(self.prompt + repr(given).encode(), digest_size=CONTENT_BYTES).hexdigest()

    def view(self) -> GroupView:
        """The view of the group before any of its requests has run."""
        facts = (self.ordinal, self.size, self.max_tokens, self.enqueued_at)
        more = {"tier": self.tier, "longest_earlier": self.longest_earlier, "batch_ordinal": self.batch_ordinal}
        return GroupView(self.id, 0, *facts, **more)
