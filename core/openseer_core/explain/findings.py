"""Findings about lost time of workers, with advice; each cause has one rule with one threshold."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from openseer_core.explain.paces import WorkerPace
from openseer_core.explain.parts import DECODING, PartName
from openseer_core.manifest.fleet import BINDING_POLICIES

Cause = Literal[
    "slow_worker",
    "giant_request",
    "kv",
    "store",
    "boot",
    "prompts",
    "weights",
    "lost",
    "prefill",
    "recompute",
    "policy",
    "tail",
    "idle",
]
SLOW = 0.75
"""Ratio of a worker's pace to that of the others below which it is slow; equal machines vary by less."""
SLOW_ADVICE = "check its node and GPU (clocks, other processes, memory), or remove the worker"
LEAST_SHARES: dict[PartName, float] = {
    "store": 0.03,
    "lost": 0.03,
    "weights": 0.05,
    "recompute": 0.05,
    "idle": 0.1,
    "boot": 0.2,
    "prompts": 0.2,
    "tail": 0.2,
    "prefill": 0.25,
}
"""Part → least share of all workers' time for which it gives a finding."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause of lost time. `subject`: the worker, request or part concerned; `figure`: the number that the advice is
    based on; `says`: the finding in words; `worker_seconds`: the lost time; `share`: its share of all workers' time."""

    cause: Cause
    subject: str
    figure: float
    says: str
    advice: str
    worker_seconds: float
    share: float


@dataclass(frozen=True)
class Account:
    """The input of the rules: workers' time by part, and the workers' paces.

    `whole`: seconds of all workers; `sums`: by part; `by_worker`: by worker and part. `slots`: of one worker, 0 if
    unknown; `requests`: number of requests.
    """

    whole: float
    sums: Mapping[PartName, float]
    by_worker: Mapping[str, Mapping[PartName, float]]
    paces: Mapping[str, WorkerPace]
    policy: str
    slots: int
    requests: int

    def share(self, seconds: float) -> float:
        """The share of `seconds` in all workers' time, 0 to 1."""
        return seconds / self.whole if self.whole else 0.0

    def most(self, *names: PartName) -> tuple[str, float]:
        """The worker with the most seconds in these parts, and those seconds."""
        seconds = {worker: sum(parts[name] for name in names) for worker, parts in self.by_worker.items()}
        worst = max(seconds, key=lambda worker: seconds[worker], default="")
        return worst, seconds.get(worst, 0.0)


def slow_pace(pace: WorkerPace) -> str:
    """A clause about a slow worker, to follow its name; "" if the pace is not slow or is unknown."""
    if pace.ratio is None or pace.ratio >= SLOW:
        return ""
    if not pace.ratio:
        return "generates no tokens, while other workers with equally many responses do"
    return (
        f"generates responses at {pace.ratio:.2f} of the other workers' pace with equally many: "
        f"{pace.tokens_per_second:.1f} tokens/s each instead of {pace.tokens_per_second / pace.ratio:.1f}"
    )


def slow_workers(account: Account) -> Iterator[Finding]:
    """A finding for each slow worker."""
    for name, pace in account.paces.items():
        if says := slow_pace(pace):
            ratio = pace.ratio or 0.0
            lost = sum(account.by_worker[name][part] for part in DECODING) * (1 - ratio)
            yield finding(account, "slow_worker", name, ratio, f"{name} {says}", SLOW_ADVICE, lost)


def large_parts(account: Account, *, least: float | None = None, but: Container[PartName] = ()) -> Iterator[Finding]:
    """A finding for each part whose share reaches its threshold in LEAST_SHARES. `least`: makespan, in seconds, of the
    best order that knows no lengths, None if unknown; `but`: parts to leave out."""
    binding, room = account.policy in BINDING_POLICIES, max(1, account.slots * len(account.by_worker))
    best = f" The best order that knows no lengths takes {least:,.1f} s." if least is not None else ""
    texts: dict[PartName, tuple[Cause, str, str]] = {
        "store": (
            "store",
            "the store: workers waited for it with free slots",
            "check the store's host and the network to it: CPU, disk (store.fsync), latency",
        ),
        "lost": (
            "lost",
            "workers were drained or lost before the end",
            "check their logs and nodes; causes are spot nodes and preemptions by other pods",
        ),
        "weights": ("weights", "workers were idle while weights were changed", "see `openseer weights status`"),
        "recompute": (
            "recompute",
            "engines computed contexts again for responses that had moved",
            "set spec.kvPool, so that contexts are fetched instead, or a larger rollout.quantumTokens",
        ),
        "idle": (
            "idle",
            "workers had no requests before the tail",
            "the policy binds requests to workers: set rollout.policy: context-aware"
            if binding
            else "the run's folder does not contain the reason: see the workers' logs",
        ),
        "boot": (
            "boot",
            "workers had not started yet",
            "start workers before the job, keep them (`openseer serve`), or cache image and model on the nodes",
        ),
        "prompts": (
            "prompts",
            "workers had started and the driver had not submitted a prompt",
            "give prompts as token ids, so that none is rendered, or store the files nearer to the driver",
        ),
        "tail": (
            "tail",
            f"workers of {room:,} slots in all, for {account.requests:,} requests, were idle while the last ones ran",
            f"more requests in a batch, fewer workers, or workers.tailRelease in a cluster.{best}",
        ),
        "prefill": (
            "prefill",
            "engines computed contexts",
            "shorten prompts, or share them: requests of a group use one prefix where prefix caching is on",
        ),
    }
    for name, (cause, says, advice) in texts.items():
        seconds = account.sums[name]
        if name in but or account.share(seconds) < LEAST_SHARES[name]:
            continue
        worker, most = account.most(name)
        sentence = f"{says} for {seconds:,.1f} worker-seconds; most {worker}, {most:,.1f} s"
        subject = cause if cause in ("store", "weights") else named(_with(account, name))
        yield finding(account, cause, subject, account.share(seconds), sentence, advice, seconds)


def _with(account: Account, part: PartName) -> list[str]:
    """The names of the workers with time in a part, by decreasing time."""
    found = {name: parts[part] for name, parts in account.by_worker.items() if parts[part] > 0}
    return sorted(found, key=lambda name: -found[name])


def finding(
    account: Account, cause: Cause, subject: str, figure: float, says: str, advice: str, seconds: float
) -> Finding:
    """A Finding, with the share computed from `seconds`, the lost worker-seconds."""
    return Finding(cause, subject, round(figure, 4), says, advice, seconds, account.share(seconds))


def named(names: Sequence[str]) -> str:
    """The first three names, and the number of the others, for a sentence."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
