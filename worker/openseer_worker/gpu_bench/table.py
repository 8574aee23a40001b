"""Makes the final table: speed-ups over no drafts by batch, and the difference of two engines without drafts."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from openseer_core.worker.speculation_enabled import CPU
from openseer_worker.gpu_bench.figures import BenchFigures, Figure
from openseer_worker.gpu_bench.plan import AGAIN, DRAFTS, EXACTNESS, NGRAM, STOCK, SUFFIX, Part, parts_of

FAR = 4.5
"""Standard deviations that chance exceeds less often than once in 100,000 times."""
QUIET = 0.1
"""Limit of the relative difference of two equal engines; above it the machine is too busy for a comparison."""
_DRAWS = 1000
_GIB = 2**30


@dataclass(frozen=True)
class Ratio:
    """The speed-up over no drafts, its 95 % interval by bootstrap over steps, and the draft tokens per request."""

    value: float
    low: float
    high: float
    drafts: int = 0

    def text(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f}–{self.high:.2f})"


@dataclass(frozen=True)
class BatchRow:
    """The results of one batch; None for a part that was not measured."""

    batch: int
    context: int
    stock_ms: float
    stock_tokens_per_second: float
    same: Ratio | None
    """A/A: the speed-up of the second engine without drafts over the first."""
    ways: dict[str, Ratio]
    asleep: Ratio | None
    """The speed-up of an engine built for drafts that drafts nothing over engines without drafts."""
    peak_bytes: dict[str, int]


def rows(found: BenchFigures, batches: Iterable[int]) -> list[BatchRow]:
    """Returns a row for each batch with a figure of `stock` or `stock again`, the smallest batch first."""
    made: list[BatchRow] = []
    for batch in sorted(set(batches)):
        first, second = (found.steps.get(Part(way, batch, 0)) for way in (STOCK, AGAIN))
        base = first or second
        if base is None:
            continue
        stock_ms = [*(first.step_ms if first else ()), *(second.step_ms if second else ())]
        of_ways = {way: _figures(found, way, batch) for way in (DRAFTS, NGRAM, SUFFIX)}
        ratios = {way: _best(stock_ms, figures) for way, figures in of_ways.items() if figures}
        asleep = next((_ratio(stock_ms, figure) for figure in of_ways[DRAFTS] if not figure.drafts), None)
        peaks = {way: max(figure.peak_bytes for figure in figures) for way, figures in of_ways.items() if figures}
        made.append(
            BatchRow(
                batch,
                base.context,
                median(stock_ms),
                batch / median(stock_ms) * 1e3,
                _ratio(first.step_ms, second) if first and second else None,
                ratios,
                asleep,
                {STOCK: base.peak_bytes, **peaks},
            )
        )
    return made


def text(found: BenchFigures, made: Sequence[BatchRow]) -> str:
    """Returns the text for people: the table, explanations, exactness, and notes on skipped and failed parts."""
    head = ("batch", "context", "stock ms", "stock tok/s", "A/A ×", "drafts ×", "at", "asleep ×", "ngram ×", "at")
    cells: list[tuple[str, ...]] = [(*head, "suffix ×", "peak GiB stock, drafts")]
    for row in made:
        drafts, ngram, suffix = (row.ways.get(way) for way in (DRAFTS, NGRAM, SUFFIX))
        cells.append(
            (
                str(row.batch),
                str(row.context),
                f"{row.stock_ms:.2f}",
                f"{row.stock_tokens_per_second:,.0f}",
                *(_cell(ratio) for ratio in (row.same, drafts)),
                str(drafts.drafts) if drafts else "–",
                f"{row.asleep.value:.2f}" if row.asleep else "–",
                _cell(ngram),
                str(ngram.drafts) if ngram else "–",
                _cell(suffix),
                ", ".join(f"{row.peak_bytes[way] / _GIB:.1f}" for way in (STOCK, DRAFTS) if way in row.peak_bytes),
            )
        )
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    about = found.header
    runners = sorted({f"{figure.way}: {_runner(figure)}" for figure in found.steps.values()})
    return "\n".join(
        [
            f"{about['device']}, model {about['model']}, vLLM {about['vllm']}; {', '.join(runners)}; {found.tier}",
            *lines,
            *_explanations(found, made),
            exactness_text(found),
            *(f"{way}: {note}" for way, note in found.notes.items()),
        ]
    )


def busy(made: Sequence[BatchRow]) -> list[int]:
    """Returns the batches at which two equal engines differ in speed by more than QUIET."""
    return [row.batch for row in made if row.same and abs(row.same.value - 1) > QUIET]


def exactness_text(found: BenchFigures) -> str:
    """Returns the result of the exactness test, in one line."""
    seen = found.exactness
    if seen is None:
        return "exactness: not measured"
    judged = "as expected by chance" if seen["deviations"] < FAR else "NOT the same distribution"
    if found.header["device"] == CPU and seen["greedy_same"] < seen["greedy_of"]:
        judged += "; greedy texts DIFFER, which is an error on a CPU"
    return (
        f"exactness (tiny model): {seen['greedy_same']} of {seen['greedy_of']} greedy texts of "
        f"{seen['greedy_tokens']} tokens are the same with drafts, at {seen['greedy_tokens_per_step']} tokens a step; "
        f"{seen['samples']} samples: chi-square {seen['chi_square']} at {seen['degrees']} degrees of freedom "
        f"({seen['deviations']} standard deviations), {judged}"
    )


def left_out(found: BenchFigures, ways: Iterable[str], batches: Iterable[int]) -> list[str]:
    """Returns the ways with missing figures and without a note: the time was not sufficient for them."""
    left: list[str] = []
    for way in ways:
        engines = (way, AGAIN) if way == STOCK else (way,)
        left += [
            each
            for each in engines
            if each not in found.notes and any(part not in found.steps for part in parts_of(each, batches))
        ]
        if way == DRAFTS and found.exactness is None and EXACTNESS not in found.notes:
            left.append(EXACTNESS)
    return left


def _figures(found: BenchFigures, way: str, batch: int) -> list[Figure]:
    return [figure for part, figure in found.steps.items() if (part.way, part.batch) == (way, batch)]


def _best(stock_ms: Sequence[float], figures: Sequence[Figure]) -> Ratio:
    return max((_ratio(stock_ms, figure) for figure in figures), key=lambda ratio: ratio.value)


def _ratio(stock_ms: Sequence[float], figure: Figure) -> Ratio:
    """Returns the ratio of token rates. Its tokens are computed from the acceptance rates, because random acceptance in
    few steps is noisy."""
    chance = random.Random(0)

    def once(draw: bool) -> float:
        ours, base = (
            median(chance.choices(times, k=len(times)) if draw else times) for times in (figure.step_ms, stock_ms)
        )
        return figure.tokens_per_step * base / ours

    drawn = sorted(once(draw=True) for _ in range(_DRAWS))
    return Ratio(once(draw=False), drawn[int(0.025 * _DRAWS)], drawn[int(0.975 * _DRAWS) - 1], figure.drafts)


def _cell(ratio: Ratio | None) -> str:
    return ratio.text() if ratio else "–"


def _runner(figure: Figure) -> str:
    return f"{figure.runner} {'asynchronous' if figure.asynchronous else 'synchronous'}"


def _explanations(found: BenchFigures, made: Sequence[BatchRow]) -> list[str]:
    lines = [
        "×: tokens per second over stock's (median, 95 % interval over steps); at: drafts per request",
        "tok/s with drafts, here and above, are by step times and assumed rates of acceptance, not by counted tokens",
    ]
    if batches := busy(made):
        lines.append(
            f"batch {', '.join(map(str, batches))}: two equal engines (A/A) differ by more than {QUIET:.0%}: the "
            "machine is busy, and these ratios are not valid"
        )
    if any(figure.accepted_by == "none" for figure in found.steps.values()):
        lines.append(
            "on a CPU vLLM cannot accept drafts at random: steps are measured, tokens a step are those of the rates"
        )
    return lines
