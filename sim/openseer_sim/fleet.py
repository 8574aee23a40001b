"""The fleet of a simulated rollout."""

from dataclasses import dataclass

from openseer_sim.drafts import DraftModel
from openseer_sim.engine import StepTime


@dataclass(frozen=True, slots=True)
class ModelledFleet:
    """A fleet of `instances` equal instances, each for `kv_tokens` tokens of context and `slots` running responses.

    `block`: tokens per KV block. `move_seconds`: seconds per token of context to fetch a response's context on another
    instance; None: the context is computed again there. `look_seconds`: least interval between two iterations of a
    worker's loop (`look`), in seconds. `drafts`: None without drafts.
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
    """The loss of instance `number` at `at` seconds; it starts again, without requests, `boot_seconds` later."""

    at: float
    number: int
    boot_seconds: float
