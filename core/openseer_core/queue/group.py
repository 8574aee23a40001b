"""A prompt group: what is submitted, what is known of it while it runs, and its place in the queue."""

from dataclasses import dataclass, replace
from hashlib import blake2b

from openseer_core.ids import GroupId

SHARED_LANE = ""
"""The lane that every worker claims from; any other lane is the number of the one worker that claims from it."""
CONTENT_BYTES = 16
"""Of a group's digest, by which a repeated submission is told from another group of its name."""


@dataclass(frozen=True, slots=True)
class Priority:
    """What a policy says of a group; the queue turns it into the group's score (lowest first).

    While the group's probe waits and `probe` is set: `probe` + tokens the probe has generated.
    Otherwise: `base` + the least, over its waiting requests, of bias + `slope` × tokens generated.
    So the store can place a request that is given back without asking the policy again.
    """

    base: float
    slope: float = 0.0
    probe: float | None = None

    def request_score(self, bias: float, generated: int, *, is_probe: bool) -> float:
        """The score that a request alone would have in the queue, in the group's unit."""
        if is_probe and self.probe is not None:
            return self.probe + generated
        return self.base + bias + self.slope * generated


@dataclass(frozen=True, slots=True)
class GroupView:
    """What is known of a group at one `revision`; policies read nothing else.

    `longest_*` are token counts; 0 where nothing is known; `longest_earlier`: of responses of earlier batches to the
    same prompt. `enqueued_at` in seconds of the store's clock. `tier`: of its batch's priority, lowest first (see
    policy.py). `batch_ordinal`: how many batches had been opened with the one that it was submitted to.
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
        """Whether all of its requests have finished, each its latest turn."""
        return self.finished >= self.size

    def with_finish(self, length: int) -> "GroupView":
        """The view after one more of its requests finished with `length` tokens."""
        return replace(
            self,
            revision=self.revision + 1,
            finished=self.finished + 1,
            longest_finished=max(self.longest_finished, length),
        )

    def with_running(self, length: int) -> "GroupView":
        """The view after a running request was seen at `length` tokens."""
        return replace(self, revision=self.revision + 1, longest_running=max(self.longest_running, length))


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """A group as it is submitted: everything that a worker needs to generate its responses.

    `prompt`: int32 token ids. `biases` (see policy.py) and `lanes`: one per request.
    `enqueued_at`: seconds of the store's clock, the ones `priority` was computed from.
    `lengths`: true lengths, where a study gives them, else empty. `sampling` and `metadata`: JSON. `seeds`: one per
    request, in place of the sampling parameters' own, or empty.
    `history`: digest of the prompt under which whole responses are kept for groups of later batches, the newest
    `history_size` of them; "" for none. `longest_earlier`: tokens of the longest that was kept at submission.
    `tier`, `batch_ordinal`: see GroupView.
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
        """How many requests the group has."""
        return len(self.biases)

    def content(self) -> str:
        """Digest of what the submitter gave, in hex; not of when it came and where it stands.

        A group may be submitted again under its name with equal content only.
        """
        given = (self.max_tokens, self.size, self.sampling, self.metadata, self.lengths, self.seeds)
        return blake2b(self.prompt + repr(given).encode(), digest_size=CONTENT_BYTES).hexdigest()

    def view(self) -> GroupView:
        """What is known of the group before anything ran."""
        facts = (self.ordinal, self.size, self.max_tokens, self.enqueued_at)
        more = {"tier": self.tier, "longest_earlier": self.longest_earlier, "batch_ordinal": self.batch_ordinal}
        return GroupView(self.id, 0, *facts, **more)
