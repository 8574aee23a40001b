"""What a simulated rollout runs on."""

from dataclasses import dataclass

from openseer_sim.drafts import DraftModel
from openseer_sim.engine import StepTime


@dataclass(frozen=True, slots=True)
class ModelledFleet:
    """`instances` of one kind: `kv_tokens` of context at once, `slots` responses at once.

    `block`: tokens of a KV block. `move_seconds`: seconds per token of context that a response brings along to another
    instance; None: its context is computed again there. `look_seconds`: how often a worker reads its engine at most.
    `drafts`: None where nothing is drafted. `losses`: instances that are lost, and when.
    """

    instances: int
    step: StepTime
    kv_tokens: int
    slots: int = 256
    block: int = 16
    move_seconds: float | None = None
    look_seconds: float = 0.25
    drafts: DraftModel | None = None
    losses: tuple["Loss", ...] = ()


@dataclass(frozen=True, slots=True)
class Loss:
    """Instance `number` is lost at `at` seconds and comes back, empty, `boot_seconds` later."""

    at: float
    number: int
    boot_seconds: float
