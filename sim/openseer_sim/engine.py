"""The engine of the simulator: the steps between two events in closed form.

While nothing begins or ends, a step takes as long as its tokens and the context that it reads say, and the context
grows by as much in each step; so the time of many steps, and the steps of a time, are roots of one quadratic.
"""

import math
from dataclasses import dataclass

NOTHING = 1e-6
"""Tokens: less than this is rounding."""


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of a step. `points`: (tokens computed, seconds), ascending, straight lines between them and beyond the
    last; `per_context`: for each token of context that is read; `per_prefill`: for each token of context that is
    computed when a request comes; `per_draft`: for each drafted token, beyond what it costs to compute one."""

    points: tuple[tuple[float, float], ...]
    per_context: float
    per_prefill: float
    per_draft: float = 0.0

    def base(self, running: float, drafted: float = 0.0) -> float:
        """Without the reading of context: a step of so many responses, with so many drafted tokens in all."""
        return self._computing(running + drafted) + self.per_draft * drafted

    def _computing(self, tokens: float) -> float:
        points = self.points
        if tokens <= points[0][0] or len(points) == 1:
            return points[0][1]
        end = next((number for number, point in enumerate(points) if point[0] >= tokens), len(points) - 1)
        (left, low), (right, high) = points[end - 1], points[end]
        return low + (high - low) * (tokens - left) / (right - left)

    @staticmethod
    def roofline(
        weights: float,
        active: float,
        kv_bytes: float,
        *,
        bandwidth: float,
        flops: float,
        overhead: float,
        most: int = 8192,
    ) -> "StepTime":
        """Of a decoder: `weights` in bytes that a step reads, `active` parameters that it computes a token with,
        `kv_bytes` of a token of context, `bandwidth` in bytes/s and `flops` in operations/s of the whole instance,
        `overhead` in seconds."""
        read, compute = weights / bandwidth, 2 * active / flops
        bend = read / compute
        points = (
            (1.0, read + overhead),
            (bend, read + overhead),
            (max(most, 2 * bend), compute * max(most, 2 * bend) + overhead),
        )
        return StepTime(points, kv_bytes / bandwidth, compute)


@dataclass(slots=True)
class _Run:
    """`context`, `done`: tokens at the engine's step `since`; `left`: all that it is to gain; `pace`: tokens that it
    gains in a step; `width`: tokens that a step computes for it."""

    context: float
    left: float
    since: float
    pace: float
    width: float
    done: float = 0.0


class ModelledEngine:
    """Responses that run together. Time is given by the caller, and never goes back."""

    def __init__(self, step: StepTime) -> None:
        self._step = step
        self._runs: dict[str, _Run] = {}
        self._steps = self._context = self._growth = self._width = 0.0
        self._base = 0.0
        self._now = 0.0
        self.busy = 0.0
        """Seconds in which anything ran."""

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def context(self) -> float:
        """Tokens of all that runs, prompts included."""
        return self._context

    @property
    def pace(self) -> float:
        """Tokens per second that a response gains now, at the mean; 0 while none runs."""
        count = len(self._runs)
        return self._growth / count / (self._base + self._step.per_context * self._context) if count else 0.0

    def settle(self, at: float) -> None:
        """Makes the steps up to `at`."""
        if at <= self._now:
            return
        if self._runs:
            steps = self._steps_in(at - self._now)
            self._steps += steps
            self._context += steps * self._growth
            self.busy += at - self._now
        self._now = at

    def add(self, key: str, context: float, left: float, *, holds: float = 0.0) -> None:
        """A response with `context` tokens, of which `left` more are to come; for `holds` seconds nothing else goes on:
        its context is computed, or comes from elsewhere."""
        self._runs[key] = _Run(context, left, self._steps, 1.0, 1.0)
        self._context += context
        self._change(1.0, 1.0)
        self._now += holds
        self.busy += holds

    def remove(self, key: str) -> float:
        """Takes it out; gives the tokens since it came."""
        gained = self.gained(key)
        run = self._runs.pop(key)
        self._context -= run.context + (self._steps - run.since) * run.pace
        self._change(-run.pace, -run.width)
        return gained

    def set_pace(self, key: str, pace: float, width: float) -> None:
        """From now on it gains `pace` tokens in a step that computes `width` for it."""
        run = self._runs[key]
        if (run.pace, run.width) == (pace, width):
            return
        gained = (self._steps - run.since) * run.pace
        run.context, run.done, run.since = run.context + gained, run.done + gained, self._steps
        growth, wider = pace - run.pace, width - run.width
        run.pace, run.width = pace, width
        self._change(growth, wider)

    def gained(self, key: str) -> float:
        """Tokens since it came."""
        run = self._runs[key]
        return min(run.left, run.done + (self._steps - run.since) * run.pace)

    def left(self, key: str) -> float:
        """Tokens that it has not gained."""
        return self._runs[key].left - self.gained(key)

    def is_over(self, key: str) -> bool:
        """Whether it has gained all that it is to gain."""
        return self.left(key) <= NOTHING

    def steps_for(self, key: str, tokens: float) -> float:
        """Until it has gained so many more."""
        return tokens / self._runs[key].pace

    def time_of(self, steps: float) -> float:
        """When so many steps more are made, if nothing else changes."""
        return (
            self._now
            + steps * (self._base + self._step.per_context * self._context)
            + (self._step.per_context * self._growth * steps * steps / 2)
        )

    def steps_to_end(self) -> float:
        """Until the first response ends."""
        return min((self.left(key) / run.pace for key, run in self._runs.items()), default=math.inf)

    def steps_to(self, context: float) -> float:
        """Until all contexts together are so long."""
        return max(0.0, context - self._context) / self._growth if self._growth else math.inf

    def _change(self, pace: float, width: float) -> None:
        self._growth += pace
        self._width += width
        if not self._runs:
            self._growth = self._width = self._context = 0.0
        self._base = self._step.base(len(self._runs), self._width - len(self._runs))

    def _steps_in(self, seconds: float) -> float:
        linear = self._base + self._step.per_context * self._context
        square = self._step.per_context * self._growth / 2
        if square * seconds < 1e-12 * linear * linear:
            return seconds / linear
        return (math.sqrt(linear * linear + 4 * square * seconds) - linear) / (2 * square)
