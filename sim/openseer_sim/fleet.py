"""The fleet of a simulated rollout."""

from dataclasses import dataclass

from openseer_sim.drafts import DraftModel
from openseer_sim.engine import StepTime


@dataclass(frozen=True, slots=True)
class ModelledFleet:
    """`instances` of one kind: `kv_tokens` of context and `slots` responses at the same time.

    `block`: tokens per KV block. `move_seconds`: seconds per token of context that a response takes along to another
    instance; None: its context is computed again there. `look_seconds`: shortest interval of a worker's looks.
    `drafts`: None without drafts. `losses`: losses of instances.
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
