"""The schedule of faults: a pure function of a seed, so that one line describes a run and repeats it."""

import random
from dataclasses import dataclass
from typing import Literal

Mode = Literal["batch", "serve"]
Kind = Literal["kill", "pause", "cut", "replies", "memory", "disk", "clock", "full", "slow", "corrupt"]

MEAN_SECONDS = 5.0
"""Mean time between two faults."""
WORKERS = 3
POOL_WORKERS = 2
"""Workers with a KV pool; each has a real engine."""
POOL_PROCESSES = ("pool-master", "pool-store")

# Kind → its share in percent, and the range from which its amount is drawn.
_KINDS: dict[Kind, tuple[int, float, float]] = {
    "kill": (34, 0.0, 0.0),
    "pause": (26, 0.3, 5.0),
    "cut": (16, 0.1, 1.5),
    "replies": (8, 1.0, 12.0),
    "memory": (6, 0.5, 4.0),
    "disk": (4, 0.5, 4.0),
    "clock": (6, -20.0, 20.0),
}
_POOL_KINDS: dict[Kind, tuple[int, float, float]] = {
    "full": (16, 3.0, 6.0),
    "slow": (16, 1.0, 6.0),
    "corrupt": (24, 0.5, 3.0),
}
_OF_PROCESSES = ("kill", "pause")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, `at` seconds after the work began.

    kill: SIGKILL. pause: SIGSTOP for `amount` seconds. cut: the store is killed and its log loses its last `amount`
    seconds. replies: the next `amount` answers of the store are lost after the commands were run. memory, disk: full
    for `amount` seconds. clock: the store's clock steps by `amount` seconds. full, slow: the KV pool is full or slow
    for `amount` seconds. corrupt: bytes of each block in the pool change for `amount` seconds.
    `target`: worker-<n>, head (the driver or the API), store, pool, or one of POOL_PROCESSES.
    """

    at: float
    kind: Kind
    target: str
    amount: float

    def __str__(self) -> str:
        amount = f" {self.amount:+.1f}" if self.amount else ""
        return f"{self.at:.1f}s {self.kind} {self.target}{amount}"


def schedule(seed: int, seconds: float, mean: float = MEAN_SECONDS, *, pool: bool = False) -> list[Fault]:
    """Faults of a run of `seconds`, in order; one every `mean` seconds on average. `pool`: including the
    faults of a KV pool."""
    draw = random.Random(seed)
    kinds: dict[Kind, tuple[int, float, float]] = {**_KINDS, **_POOL_KINDS} if pool else _KINDS
    workers = [f"worker-{number}" for number in range(POOL_WORKERS if pool else WORKERS)]
    targets = [*workers, "head", "store", *(POOL_PROCESSES if pool else ())]
    faults: list[Fault] = []
    at = draw.expovariate(1 / mean)
    while at < seconds:
        kind: Kind = draw.choices(list(kinds), [weight for weight, _, _ in kinds.values()])[0]
        _, least, most = kinds[kind]
        target = draw.choice(targets)
        if kind not in _OF_PROCESSES:
            target = "pool" if kind in _POOL_KINDS else "store"
        faults.append(Fault(round(at, 1), kind, target, round(draw.uniform(least, most), 1)))
        at += draw.expovariate(1 / mean)
    return faults


def replay_line(seed: int, seconds: float, mean: float, mode: Mode, engine: str = "scripted") -> str:
    """The command that repeats the same faults."""
    line = f"python -m tests.chaos.play --mode {mode} --seconds {seconds:g} --mean {mean:g} --seed {seed}"
    return line if engine == "scripted" else f"{line} --engine {engine}"
