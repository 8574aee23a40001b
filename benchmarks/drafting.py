"""Measures cost and gain of drafts: openseer's drafter and arctic-inference, which vLLM's method `suffix` uses.

    python benchmarks/drafting.py

Recorded responses are replayed: responses that the tiny model sampled (benchmarks/data), and long synthetic ones that
are as similar to each other as the paper's. The benchmark measures costs, acceptance by the number of siblings, and
policies of draft lengths with one model of the step time: 10 ms, and 0.05 ms for each computed token.
docs/benchmarks.md describes how to install arctic-inference; without it only the product's own drafter is measured.
"""

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from support.drafters.arctic import ARCTIC_MISSING, has_arctic
from support.drafters.draft_costs import measure_costs
from support.drafters.mba import MOST_TOKENS, MarginalBenefit
from support.drafters.prompt_lookup import PromptLookup
from support.drafters.replay import Arctic, Ours, Outcome, Peer, Row, Static, StepTime, replay
from support.stamp import Stamp
from support.synthetic_groups import synthetic_group
from support.tiny_rollouts import SampledGroup, sampled_groups
from support.two_workers import INTERVALS, shared

SIBLINGS = (0, 1, 5, 15)
PAPER = {0: 1.70, 1: 2.04, 5: 2.32, 15: 2.53}
SLOTS = 64
GRID = [
    Static(most, factor, probability)
    for most, factor, probability in itertools.product((8, 16), (1.0, 2.0, 4.0), (0.1, 0.3, 0.5))
]
QUICK_GRID = [Static(8, 1.0, 0.1), Static(8, 4.0, 0.5), Static(16, 4.0, 0.3)]
FIRST_STEP = """
import time
started = time.perf_counter()
import numpy as np
from openseer_draft.drafter import Drafter
imported = time.perf_counter()
drafter = Drafter(slots=1, max_tokens=8, memory_bytes=2**24)
drafter.append("g", 1, 0, np.arange(64, dtype=np.int32).tobytes())
text = np.arange(32, dtype=np.int32)
slot = drafter.open("g", 0, text[:16], 8)
slots = np.array([slot], np.int32)
drafter.step(slots, text[None], np.zeros(1, np.int32), np.array([20], np.int32), 0.01)
drafter.close(slot)
print(imported - started, time.perf_counter() - imported)
"""
Groups = list[SampledGroup]


def main() -> None:
    """Measures everything and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter responses, fewer settings")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    parser.add_argument("--intervals", action="store_true", help="measure only the loss by longer checkpoint intervals")
    parser.add_argument(
        "--positions", action="store_true", help="measure only the acceptance rates by position in a draft"
    )
    options = parser.parse_args()
    stamp = Stamp()
    console = Console(width=130)
    if options.positions or options.intervals:
        made = intervals(options.quick) if options.intervals else {"positions": positions(made_up(options.quick))}
        found = {**made, **stamp.fields()}
        console.print_json(data=found)
        if options.json:
            options.json.write_text(json.dumps(found, indent=1))
        return
    if not has_arctic():
        console.print(ARCTIC_MISSING)
    sampled, synthetic = sampled_groups()[: 6 if options.quick else None], made_up(options.quick)
    grid = QUICK_GRID if options.quick else GRID
    measurements: dict[str, Any] = {
        "start": start_up(),
        "costs": measure_costs(quick=options.quick),
        "acceptance": {"sampled": acceptance(sampled, grid), "made-up": acceptance(synthetic[:4], grid)},
        "policies": {"sampled": policies(sampled, grid), "made-up": policies(ragged(synthetic), grid)},
        **stamp.fields(),
    }
    report(measurements, console)
    if options.json:
        options.json.write_text(json.dumps(measurements, indent=1))


# ---- replayed responses


def made_up(quick: bool) -> Groups:
    """Synthetic groups of 16, with random prompts."""
    tokens, groups = (2048, 2) if quick else (4096, 3)
    prompt = np.arange(1, 25, dtype=np.int32)
    return [SampledGroup(prompt, synthetic_group(16, tokens, seed)) for seed in range(groups)]


def ragged(groups: Groups) -> Groups:
    """Cuts the responses to heavy-tailed lengths, so that a batch has a tail as in a rollout."""
    chance = np.random.default_rng(0)
    longest = max(len(response) for response in groups[0].responses)
    result: Groups = []
    for group in groups:
        typical = math.exp(chance.normal(math.log(longest / 6), 0.8))
        own = [typical * math.exp(chance.normal(0, 0.4)) for _ in group.responses]
        lengths = [min(longest, max(32, int(length))) for length in own]
        cut = [response[:length] for response, length in zip(group.responses, lengths, strict=True)]
        result.append(SampledGroup(group.prompt, cut))
    return result


# ---- the first step of a process


def start_up() -> dict[str, float]:
    """Seconds to import the drafter and to its first step, with an empty cache of compiled code and with a full one."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", FIRST_STEP]
        environment = os.environ | {"NUMBA_CACHE_DIR": folder}
        runs = [
            subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.split()
            for _ in range(2)
        ]
    return {
        "first_ever_seconds": float(runs[0][1]),
        "cached_seconds": float(runs[1][1]),
        "import_seconds": float(runs[1][0]),
    }


# ---- acceptance by the number of siblings


def acceptance(groups: Groups, grid: list[Static]) -> dict[str, Any]:
    """For each number of known siblings: ours, vLLM's default settings, and the grid's best at ours' drafted length."""
    result: dict[str, Any] = {}
    for count in SIBLINGS:
        longest = max(len(group.prompt) + len(response) for group in groups for response in group.responses)
        row: dict[str, Any] = {"paper": PAPER[count], "ours": with_siblings(Ours(1, 8, longest, None), groups, count)}
        if has_arctic():
            row["default"] = with_siblings(Arctic(Static(8), depth=24), groups, count)
            nothing = {"drafted_per_step": 0.0, "tokens_per_step": 1.0}
            points = [nothing, *(with_siblings(Arctic(setting), groups, count) for setting in grid)]
            row["arctic_at_equal_length"] = at_equal_length(points, row["ours"]["drafted_per_step"])
            row["tree_gain"] = tree_gain(groups, count)
        result[str(count)] = row
    return result


def positions(groups: Groups) -> dict[str, list[float]]:
    """Acceptance rates by position in drafts of at most 8 tokens, with which `openseer bench-gpu` accepts drafts."""
    longest = max(len(group.prompt) + len(response) for group in groups for response in group.responses)
    known = {f"ours, {count} siblings": (Ours(1, 8, longest, None), count) for count in SIBLINGS}
    return {
        name: replay_last(peer, groups, count).positions(8)
        for name, (peer, count) in {**known, "ngram": (PromptLookup(8), 0)}.items()
    }


def intervals(quick: bool) -> dict[str, dict[str, dict[str, float]]]:
    """Rates of groups that two workers share, by the interval of their checkpoints."""
    kinds = {"sampled": sampled_groups()[: 6 if quick else None], "made-up": made_up(quick)}
    return {name: {f"{step:g} s": shared(groups, step) for step in INTERVALS} for name, groups in kinds.items()}


def with_siblings(peer: Peer, groups: Groups, count: int) -> dict[str, float]:
    """The rates of `replay_last`."""
    return replay_last(peer, groups, count).rates()


def replay_last(peer: Peer, groups: Groups, count: int) -> Outcome:
    """The last response of each group, one after another, each with a given number of complete siblings."""
    outcome = Outcome()
    for number, group in enumerate(groups):
        for index in range(count):
            peer.know(number, index, group.prompt, group.responses[index])
        last = len(group.responses) - 1
        outcome.add(replay(peer, [Row.of(number, last, group.prompt, group.responses[last])], 1, StepTime()))
    return outcome


def at_equal_length(points: list[dict[str, float]], drafted: float) -> float | None:
    """Tokens per step of the best mix of settings with the same drafted tokens; None if no setting drafts as many."""
    best: float | None = None
    for low, high in itertools.product(points, points):
        left, right = low["drafted_per_step"], high["drafted_per_step"]
        if left <= drafted <= right:
            share = (drafted - left) / (right - left) if right > left else 0.0
            mixed = low["tokens_per_step"] * (1 - share) + high["tokens_per_step"] * share
            best = mixed if best is None else max(best, mixed)
    return best


def tree_gain(groups: Groups, count: int) -> float:
    """Gain in tokens per step of the best tree of at most 8 tokens over the best path of at most 8."""
    path, tree = (
        max(
            with_siblings(Arctic(Static(8, factor, probability, kind)), groups, count)["tokens_per_step"]
            for factor, probability in ((1.0, 0.1), (4.0, 0.1), (4.0, 0.02))
        )
        for kind in (False, True)
    )
    return tree - path


# ---- policies of draft lengths


def policies(groups: Groups, grid: list[Static]) -> dict[str, Any]:
    """Whole rollouts, groups in their order, under the same step-time model. The best static setting is the fastest."""
    model = StepTime()
    longest = max(len(group.prompt) + len(response) for group in groups for response in group.responses)
    result: dict[str, Any] = {
        "ours, at most 8": rollout(Ours(SLOTS, 8, longest, model), groups, model),
        "ours, at most 16": rollout(Ours(SLOTS, 16, longest, model), groups, model),
    }
    if not has_arctic():
        return result
    result["vLLM's suffix"] = rollout(Arctic(Static(24), depth=24, apart=False), groups, model)
    static = {
        f"at most {setting.most_tokens}, factor {setting.factor:g}, probability {setting.probability:g}": rollout(
            Arctic(setting), groups, model
        )
        for setting in grid
    }
    best = max(static, key=lambda name: static[name]["tokens_per_model_second"])
    result["best static"] = static[best] | {"setting": best}
    ours = result["ours, at most 16"]
    as_many = [row for row in static.values() if row["accepted_per_step"] >= ours["accepted_per_step"]]
    if as_many:
        result["most thrifty static of as many accepted a step"] = max(
            as_many, key=lambda row: row["accepted_per_drafted"]
        )
    for name, marginal in (("paper's, as printed", False), ("paper's, by marginal tokens", True)):
        runs = [
            rollout(Arctic(Static(MOST_TOKENS, factor), MarginalBenefit(model, marginal=marginal)), groups, model)
            for factor in (1.0, 4.0)
        ]
        result[name] = max(runs, key=lambda row: row["tokens_per_model_second"])
    return result


def rollout(peer: Peer, groups: Groups, model: StepTime) -> dict[str, Any]:
    """All responses of all groups, SLOTS at once."""
    rows = [
        Row.of(number, index, group.prompt, response)
        for number, group in enumerate(groups)
        for index, response in enumerate(group.responses)
    ]
    return replay(peer, rows, SLOTS, model).rates()


# ---- for people


def report(measurements: dict[str, Any], console: Console) -> None:
    """Everything as tables."""
    start = measurements["start"]
    console.print(
        f"first step: {start['first_ever_seconds']:.1f} s where nothing is compiled yet, then "
        f"{start['cached_seconds']:.2f} s; import {start['import_seconds']:.2f} s",
        highlight=False,
    )
    costs = Table("costs", *measurements["costs"], title="costs")
    for name in next(iter(measurements["costs"].values())):
        costs.add_row(name, *(_number(column.get(name)) for column in measurements["costs"].values()))
    console.print(costs)
    for name, rows in measurements["acceptance"].items():
        console.print(_acceptance_table(name, rows))
    for name, rows in measurements["policies"].items():
        table = Table("policy", "accepted / drafted", "accepted a step", "drafted a step", "tokens / s", title=name)
        for policy, row in rows.items():
            label = f"{policy} ({row['setting']})" if "setting" in row else policy
            columns = ("accepted_per_drafted", "accepted_per_step", "drafted_per_step", "tokens_per_model_second")
            table.add_row(label, *(_number(row[column]) for column in columns))
        console.print(table)


def _acceptance_table(name: str, rows: dict[str, Any]) -> Table:
    columns = (
        "siblings",
        "paper",
        "ours",
        "drafted",
        "arctic at equal length",
        "vLLM's suffix",
        "drafted",
        "tree gain",
    )
    table = Table(*columns, title=f"tokens a step, {name} groups")
    for count, row in rows.items():
        default = row.get("default", {})
        table.add_row(
            count,
            _number(row["paper"]),
            _number(row["ours"]["tokens_per_step"]),
            _number(row["ours"]["drafted_per_step"]),
            _number(row.get("arctic_at_equal_length")),
            _number(default.get("tokens_per_step")),
            _number(default.get("drafted_per_step")),
            _number(row.get("tree_gain")),
        )
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    main()
