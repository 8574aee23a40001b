"""Draws the report's charts over time: completion, chunks by worker, requests in flight, queue and cache, requeues."""

import heapq
from collections.abc import Callable, Sequence
from math import nan
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch

from openseer_core.ids import PROBE_INDEX
from openseer_core.queue.batch import tail_start
from openseer_driver.report.chart_style import (
    AMBER,
    BLUE,
    GREEN,
    GREY,
    INK,
    MUTED,
    PAPER,
    PURPLE,
    RASTER_FROM,
    RED,
    SERIES,
    count_axis,
    figure,
    legend_above,
    shade_tail,
    styled,
    svg,
    time_axis,
)
from openseer_driver.report.pace import duration
from openseer_driver.report.report import Report
from openseer_driver.report.trace import Fact, Trace, count_up, step_changes
from openseer_driver.run_lines import ChunkLine, WorkerSample

FEW_WORKERS = 4
"""Largest number of workers for which an overlaid chart draws one line per worker."""

_ENDS = {"probe": PURPLE, "complete": BLUE, "give_back": AMBER, "reap": RED, "abort": GREY, "fail": RED}
_END_NAMES = {
    "probe": "probe finished",
    "complete": "finished",
    "give_back": "given back",
    "reap": "lease lost",
    "abort": "aborted",
    "fail": "failed",
}


@styled
def completion(trace: Trace, report: Report) -> str:
    """Finished requests over time, with the times of 50 %, 90 % and 99 %."""
    times = trace.finish_times()
    made, (axes,) = figure(2.9)
    shade_tail(axes, tail_start(times), trace.end)
    done = list(range(len(times) + 1))
    axes.step([0.0, *times], done, where="post", color=BLUE, linewidth=1.6)
    axes.fill_between([0.0, *times], done, step="post", color=BLUE, alpha=0.10, linewidth=0)
    for percent in (50, 90, 99):
        time, count = report.time_to_percent[str(percent)], len(times) * percent / 100
        axes.plot([time], [count], "o", markersize=4.5, color=BLUE, markeredgecolor=PAPER, markeredgewidth=0.8)
        axes.annotate(
            f"{percent} % at {duration(time)}",
            (time, count),
            xytext=(-7, 2),
            textcoords="offset points",
            ha="right",
            va="bottom",
        )
    time_axis(axes, trace.end)
    count_axis(axes, "requests done")
    axes.set_ylim(0, len(times) * 1.08)
    return svg(made, "Requests done over time", "completion")


@styled
def timeline(trace: Trace) -> str:
    """All chunks over time: a band per worker, and in it a lane per concurrent request."""
    names = trace.worker_names
    made, (axes,) = figure(max(1.6, 0.75 + min(7.5, len(names) * (1.5 if len(names) <= FEW_WORKERS else 0.55))))
    count = sum(len(fact.chunks) for fact in trace.facts)
    used: set[str] = set()
    for position, name in enumerate(names):
        boxes, ends = _boxes(trace.spans(name), position)
        used.update(ends)
        bars = PolyCollection(
            boxes,
            facecolors=[_ENDS.get(end, GREY) for end in ends],
            edgecolors=PAPER if count <= RASTER_FROM else "none",
            linewidths=0.35 if count <= RASTER_FROM else 0,
            rasterized=count > RASTER_FROM,
        )
        axes.add_collection(bars, autolim=False)
    shade_tail(axes, tail_start(trace.finish_times()), trace.end)
    axes.set_ylim(len(names), 0)
    axes.set_yticks([position + 0.5 for position in range(len(names))], names)
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    time_axis(axes, trace.end)
    handles = [Patch(color=_ENDS[end], label=_END_NAMES[end]) for end in _ENDS if end in used]
    if handles:
        axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=6, handlelength=1.0)
    return svg(made, "Chunks of every worker over time", "timeline")


@styled
def inflight(trace: Trace, report: Report) -> str:
    """Number of requests that each worker ran, in a row per worker, with the tail shaded."""
    names = trace.worker_names
    height = 0.95 if len(names) <= FEW_WORKERS else 0.42
    made, rows = figure(0.6 + height * len(names), len(names), [1.0] * len(names))
    top = max([1, *(max(worker.peak_inflight, worker.slots) for worker in report.workers.values())])
    tail = tail_start(trace.finish_times())
    for axes, name in zip(rows, names, strict=True):
        times, counts = step_changes((start, end) for start, end, _, _ in trace.spans(name))
        shade_tail(axes, tail, trace.end)
        axes.fill_between([*times, trace.end], [*counts, counts[-1]], step="post", color=BLUE, alpha=0.75, linewidth=0)
        slots = report.workers[name].slots
        if slots:
            axes.axhline(slots, color=MUTED, linewidth=0.7, linestyle=(0, (2, 3)))
        axes.set_ylim(0, top * 1.12)
        axes.set_yticks([0, top] if height > 0.5 else [top])
        axes.set_ylabel(name, rotation=0, ha="right", va="center", color=INK)
        time_axis(axes, trace.end, label=axes is rows[-1])
        axes.tick_params(axis="x", length=3 if axes is rows[-1] else 0)
    return svg(made, "Requests in flight on every worker over time", "inflight")


@styled
def queue_and_cache(trace: Trace) -> str:
    """Upper chart: requests waiting and running. Lower chart: use of the workers' KV caches."""
    made, (above, below) = figure(4.2, 2, (1.0, 1.0))
    times = [trace.clock.at(sample.at) for sample in trace.samples]
    waiting = [sample.waiting for sample in trace.samples]
    above.fill_between(times, waiting, color=GREY, alpha=0.35, linewidth=0, label="waiting")
    above.plot(times, [sample.inflight for sample in trace.samples], color=BLUE, linewidth=1.4, label="running")
    count_axis(above, "requests")
    legend_above(above)
    names = trace.worker_names
    if len(names) <= FEW_WORKERS:
        for name, colour in zip(names, SERIES, strict=False):
            _cache_lines(below, trace, name, colour)
    else:
        _cache_band(below, trace, times)
    below.set_ylim(0, 1.03)
    below.set_ylabel("share of the KV cache")
    below.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    legend_above(below)
    time_axis(below, trace.end)
    return svg(made, "Queue and KV cache over time", "queue")


@styled
def requeues(trace: Trace) -> str:
    """Cumulative numbers of returns to the queue and of preemptions by engines, over time."""
    made, (axes,) = figure(2.3)
    chunks = [chunk for fact in trace.facts for chunk in fact.chunks]
    for event, name, colour in (("give_back", "given back", AMBER), ("reap", "lease lost", RED)):
        times = sorted(trace.clock.at(chunk.ended_at) for chunk in chunks if chunk.event == event)
        if times:
            steps = [0.0, *times, trace.end], [0, *range(1, len(times) + 1), len(times)]
            axes.step(*steps, where="post", color=colour, linewidth=1.6, label=name)
    times, counts = _preemptions(trace)
    if counts and counts[-1]:
        axes.step(times, counts, where="post", color=PURPLE, linewidth=1.6, label="preempted by the engine")
    count_axis(axes, "so far")
    legend_above(axes)
    time_axis(axes, trace.end)
    return svg(made, "Requeues and preemptions over time", "requeues")


# ---- pieces


def _boxes(
    spans: Sequence[tuple[float, float, ChunkLine, Fact]], position: int
) -> tuple[list[list[tuple[float, float]]], list[str]]:
    lanes = _lanes([(start, end) for start, end, _, _ in spans])
    count = max(lanes, default=0) + 1
    boxes: list[list[tuple[float, float]]] = []
    ends: list[str] = []
    for (start, end, chunk, fact), lane in zip(spans, lanes, strict=True):
        low = position + 0.06 + 0.88 * lane / count
        high = low + 0.88 / count * 0.94
        boxes.append([(start, low), (end, low), (end, high), (start, high)])
        probe = chunk.event == "complete" and fact.index == PROBE_INDEX
        ends.append("probe" if probe else chunk.event)
    return boxes, ends


def _lanes(spans: Sequence[tuple[float, float]]) -> list[int]:
    """The lowest free lane for each span; `spans` are sorted by their start."""
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    lanes: list[int] = []
    for start, end in spans:
        while busy and busy[0][0] <= start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        lane = heapq.heappop(free) if free else len(busy)
        heapq.heappush(busy, (end, lane))
        lanes.append(lane)
    return lanes


def _cache_lines(axes: Axes, trace: Trace, name: str, colour: str) -> None:
    times = [trace.clock.at(sample.at) for sample in trace.samples]
    mine = [sample.workers.get(name, _ABSENT) for sample in trace.samples]
    axes.plot(times, [sample.kv_used for sample in mine], color=colour, linewidth=1.4, label=f"{name}, used")
    reserved = [sample.kv_reserved for sample in mine]
    axes.plot(times, reserved, color=colour, linewidth=0.9, linestyle=(0, (2, 2)), label=f"{name}, reserved")


def _cache_band(axes: Axes, trace: Trace, times: Sequence[float]) -> None:
    low, mean, high, reserved = (
        [how([value(worker) for worker in sample.workers.values()] or [0.0]) for sample in trace.samples]
        for how, value in _BAND
    )
    axes.fill_between(times, low, high, color=GREEN, alpha=0.25, linewidth=0, label="used, emptiest to fullest worker")
    axes.plot(times, mean, color=GREEN, linewidth=1.4, label="used, mean")
    axes.plot(times, reserved, color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)), label="reserved, mean")


_ABSENT = WorkerSample(kv_used=nan, kv_reserved=nan)
"""Stands for a worker that a sample does not contain: NaN leaves a gap in the line."""


def _used(sample: WorkerSample) -> float:
    return sample.kv_used


def _reserved(sample: WorkerSample) -> float:
    return sample.kv_reserved


_BAND: tuple[tuple[Callable[[list[float]], float], Callable[[WorkerSample], float]], ...] = (
    (min, _used),
    (fmean, _used),
    (max, _used),
    (fmean, _reserved),
)
"""The lines of `_cache_band`: a statistic over workers, and the value of each worker."""


def _preemptions(trace: Trace) -> tuple[list[float], list[int]]:
    times = [trace.clock.at(sample.at) for sample in trace.samples]
    total = [0] * len(times)
    for name in trace.worker_names:
        # A worker that is missing in a sample keeps its last count.
        last, values = 0, list[int]()
        for sample in trace.samples:
            last = sample.workers[name].preemptions if name in sample.workers else last
            values.append(last)
        total = [a + round(b) for a, b in zip(total, count_up(values), strict=True)]
    return times, total
