"""The counters of drafts under their names in heartbeats: of one worker, as sums, and as ratios."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

DRAFT_ORIGINS = ("own", "siblings", "earlier", "prompt")
"""The origin of a draft: the response itself, its siblings, responses of earlier batches, the prompt."""
CORPUS_SIZES = (0, 1, 2, 4, 8, 16)
"""Classes of the number of responses from which a request drafts: each begins with this number and ends before the
next class."""
COUNTERS = (
    "steps",
    "drafted_tokens",
    "accepted_tokens",
    "draft_steps",
    "draft_seconds",
    "draft_full",
    "shared_tokens",
    "shared_bytes",
    *(f"{what}_{origin}" for what in ("drafted", "accepted") for origin in DRAFT_ORIGINS),
    *(f"{what}_refs_{count}" for what in ("steps", "tokens") for count in CORPUS_SIZES),
)
"""Names of the counters; they only grow during a boot of a worker. `steps`: steps of the engine. `draft_full`: number
of times that a request ran without drafts because memory was short. `…_refs_N`: request-steps, or their tokens, by
class of CORPUS_SIZES."""


@dataclass(frozen=True, slots=True)
class DraftMetrics:
    """Counters of one worker, sums over workers, or differences over time."""

    values: Mapping[str, float] = field(default_factory=dict[str, float])

    @staticmethod
    def of(metrics: Mapping[str, float | int | str]) -> "DraftMetrics":
        """Counters from a heartbeat; empty if the worker does not draft."""
        if not metrics.get("draft_steps"):
            return DraftMetrics()
        return DraftMetrics({name: float(metrics[name]) for name in COUNTERS if name in metrics})

    def __add__(self, other: "DraftMetrics") -> "DraftMetrics":
        names = self.values.keys() | other.values.keys()
        return DraftMetrics({name: self[name] + other[name] for name in names})

    def since(self, earlier: "DraftMetrics") -> "DraftMetrics":
        """The increase of one worker's counters since `earlier`; the counters themselves after a restart."""
        if any(value < earlier[name] for name, value in self.values.items()):
            return self
        return DraftMetrics({name: value - earlier[name] for name, value in self.values.items()})

    def __getitem__(self, name: str) -> float:
        return self.values.get(name, 0.0)

    @property
    def drafted(self) -> int:
        """Number of tokens that were drafted, and that the engine verified."""
        return round(self["drafted_tokens"])

    @property
    def accepted(self) -> int:
        """Number of drafted tokens that the engine accepted."""
        return round(self["accepted_tokens"])

    @property
    def acceptance(self) -> float:
        """Share of the drafted tokens that were accepted."""
        return _ratio(self["accepted_tokens"], self["drafted_tokens"])

    @property
    def request_steps(self) -> int:
        """Number of request-steps, with and without a draft."""
        return round(sum(self[f"steps_refs_{count}"] for count in CORPUS_SIZES))

    @property
    def acceptance_length(self) -> float:
        """Mean tokens per request-step, including the one that the engine samples; 0 without a request-step."""
        return _ratio(sum(self[f"tokens_refs_{count}"] for count in CORPUS_SIZES), self.request_steps)

    @property
    def draft_share(self) -> float:
        """Share of the generated tokens that were drafted."""
        return _ratio(self["accepted_tokens"], sum(self[f"tokens_refs_{count}"] for count in CORPUS_SIZES))

    @property
    def draft_length(self) -> float:
        """Mean drafted tokens per request-step."""
        return _ratio(self["drafted_tokens"], self.request_steps)

    @property
    def seconds_per_step(self) -> float:
        """Mean time for drafting per step of the engine, in seconds."""
        return _ratio(self["draft_seconds"], self["steps"])


def summed(counts: Iterable[DraftMetrics]) -> DraftMetrics:
    """The sum over several workers or periods."""
    return sum(counts, DraftMetrics())


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
