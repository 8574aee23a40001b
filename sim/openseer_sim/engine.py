"""Simulates an engine: computes the steps between two events in closed form.

The time of a step depends on its tokens and on the context that it reads. Between two events the context grows by a
constant in each step, so the time of many steps is quadratic in their number, and the number of steps in a given time
is a root of this quadratic.
"""

import math
from dataclasses import dataclass

NOTHING = 1e-6
"""Remainder, in tokens, that counts as an error of rounding."""


@dataclass(frozen=True, slots=True)
class StepTime:
    """The time of a step, in seconds. `points`: (computed tokens, seconds), ascending; linear between them and beyond
    the last, constant below the first; `per_context`: seconds per token of context that is read; `per_prefill`: seconds
    per token of context that is computed when a request starts; `per_draft`: seconds per drafted token, in addition to
    its computation."""

    points: tuple[tuple[float, float], ...]
    per_context: float
    per_prefill: float
    per_draft: float = 0.0

    def base(self, running: float, drafted: float = 0.0) -> float:
        """Seconds without reading context, of a step with `running` responses and `drafted` drafted tokens in total."""
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
        """The step times of a decoder by the roofline model. `weights`: bytes of weights that a step reads; `active`:
        parameters that compute a token; `kv_bytes`: bytes per token of context; `bandwidth` in bytes/s and `flops` in
        operations/s: of the whole instance; `overhead`: seconds per step; `most`: tokens of the last point, or more."""
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
    """A running response. `context`, `done`: its tokens of context, and generated here, at the engine's step `since`;
    `left`: tokens to generate here in total; `pace`: tokens per step; `width`: computed tokens per step."""

    context: float
    left: float
    since: float
    pace: float
    width: float
    done: float = 0.0


class ModelledEngine:
    """An engine whose responses run together. The caller passes the time, in seconds; it must not decrease."""

    def __init__(self, step: StepTime) -> None:
        self._step = step
        self._runs: dict[str, _Run] = {}
        self._steps = self._context = self._growth = self._width = 0.0
        self._base = 0.0
        self._now = 0.0
        self.busy = 0.0
        """Seconds in which at least one response ran."""

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def context(self) -> float:
        """Tokens of context of all running responses together, prompts included."""
        return self._context

    @property
    def pace(self) -> float:
        """Present tokens per second of a response, the mean over responses; 0 while none runs."""
        count = len(self._runs)
        return self._growth / count / (self._base + self._step.per_context * self._context) if count else 0.0

    def settle(self, at: float) -> None:
        """Runs the steps up to time `at`."""
        if at <= self._now:
            return
        if self._runs:
            steps = self._steps_in(at - self._now)
            self._steps += steps
            self._context += steps * self._growth
            self.busy += at - self._now
        self._now = at

    def add(self, key: str, context: float, left: float, *, holds: float = 0.0) -> None:
        """Adds a response with `context` tokens, which generates `left` more. All responses pause for `holds` seconds,
        in which its context is computed or fetched."""
        self._runs[key] = _Run(context, left, self._steps, 1.0, 1.0)
        self._context += context
        self._change(1.0, 1.0)
        self._now += holds
        self.busy += holds

    def remove(self, key: str) -> float:
        """Removes a response; returns the tokens that it generated here."""
        gained = self.gained(key)
        run = self._runs.pop(key)
        self._context -= run.context + (self._steps - run.since) * run.pace
        self._change(-run.pace, -run.width)
        return gained

    def set_pace(self, key: str, pace: float, width: float) -> None:
        """Changes a response to `pace` tokens per step, with `width` computed tokens."""
        run = self._runs[key]
        if (run.pace, run.width) == (pace, width):
            return
        gained = (self._steps - run.since) * run.pace
        run.context, run.done, run.since = run.context + gained, run.done + gained, self._steps
        growth, wider = pace - run.pace, width - run.width
        run.pace, run.width = pace, width
        self._change(growth, wider)

    def gained(self, key: str) -> float:
        """Tokens that a response has generated here."""
        run = self._runs[key]
        return min(run.left, run.done + (self._steps - run.since) * run.pace)

    def left(self, key: str) -> float:
        """Tokens that a response has not generated yet."""
        return self._runs[key].left - self.gained(key)

    def is_over(self, key: str) -> bool:
        """Whether a response has generated all its tokens."""
        return self.left(key) <= NOTHING

    def steps_for(self, key: str, tokens: float) -> float:
        """Number of steps until a response has generated `tokens` more."""
        return tokens / self._runs[key].pace

    def time_of(self, steps: float) -> float:
        """The time after `steps` further steps, if no event happens before."""
        return (
            self._now
            + steps * (self._base + self._step.per_context * self._context)
            + (self._step.per_context * self._growth * steps * steps / 2)
        )

    def steps_to_end(self) -> float:
        """Number of steps until the first response ends; infinite while none runs."""
        return min((self.left(key) / run.pace for key, run in self._runs.items()), default=math.inf)

    def steps_to(self, context: float) -> float:
        """Number of steps until all contexts together have `context` tokens."""
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
