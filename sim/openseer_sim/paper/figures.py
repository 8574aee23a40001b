"""Contains the figures of the Seer paper (arXiv 2511.14617v3 and the OSDI '26 text)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PaperFigures:
    """The figures of one workload, at its own group size. Ratios are throughputs divided by veRL's without drafts.

    `*_total`, `*_tail` of veRL and Seer: seconds of an iteration, and of its last tenth of requests. `verl_drafts`:
    ratio of veRL with conventional drafts; `accepted`: tokens per step with these drafts. `verl_grouped`: ratio of veRL
    with Seer's drafts. `divided`, `context`, `drafts`: ratios of Seer's parts, each including the previous parts.
    `streamrl`: ratio with true lengths. `divided_tail`, `context_tail`: tails as shares of veRL's tail. None: not
    reported.
    """

    verl_total: float
    verl_tail: float
    seer_total: float
    seer_tail: float
    verl_drafts: float
    accepted: float
    verl_grouped: float
    divided: float
    context: float
    drafts: float
    streamrl: float
    streamrl_drafts: float
    oracle: float | None = None
    divided_tail: float | None = None
    context_tail: float | None = None


MOONLIGHT = PaperFigures(3910, 1817, 2181, 278, 1.16, 1.67, 1.26, 1.41, 1.47, 1.90, 1.21, 1.62)
QWEN = PaperFigures(
    3957, 2301, 1922, 123, 1.08, 2.19, 1.38, 1.42, 1.56, 2.04, 1.43, 1.57, oracle=1.63, divided_tail=0.79,
    context_tail=0.11,
)  # fmt: skip
KIMI = PaperFigures(12202, 3144, 8267, 850, 1.26, 1.74, 1.25, 1.16, 1.27, 1.53, 0.99, 1.09)

SEER_OVER_APRIL = 1.43
"""Seer's throughput divided by that of partial rollout that issues twice the needed groups; the paper does not name the
workload."""

VERL_IDLE = 0.37
"""Idle share of the instances' time under veRL, on average; the paper does not name the workload."""

GROUPED_TOKENS = ((0.0, 1.70), (1.0, 2.04), (5.0, 2.32), (15.0, 2.53))
"""Points (number of siblings in the tree, mean tokens per step, the engine's own included), with drafts of one path."""
