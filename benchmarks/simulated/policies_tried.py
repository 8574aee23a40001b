"""Compares orders, probes, chunks and drafts that the product does not have with its own, on the paper's workloads.

    PYTHONPATH=benchmarks python benchmarks/simulated/policies_tried.py --out tried.jsonl [--seeds 1 2 3] [--only WORD]

Each line of the file is one simulated rollout; rollouts in the file are not simulated again. At the end a table is
printed, with throughput relative to the product's order on the same requests (docs/policies-tried.md).
"""

import argparse
import json
import math
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simulated.lengths_known import GroupPrior, Left, gittins, mean, prior_of, quantile
from simulated.other_rollouts import Rules, other

from openseer_core.queue.group import GroupView, Priority
from openseer_core.queue.length_estimate import POSSIBLE_OF_KNOWN, estimate, longest_possible
from openseer_core.queue.policy import Policy, policy
from openseer_sim.bound import BOUND, least_seconds
from openseer_sim.engine import StepTime
from openseer_sim.fleet import ModelledFleet
from openseer_sim.paper.cases import CASES, GROUPED
from openseer_sim.systems import OURS, System, divided_by
from openseer_sim.work import LengthModel

PART = 0.25
"""Simulated share of each fleet, as in `openseer simulate paper --quick`."""
EARLIER = 0.8
"""Correlation of the logarithms of a prompt's typical lengths in the previous iteration and in this one."""
APART = 2.0
"""Ratio of the lengths of two finished siblings above which a group gets a third probe."""
STUDENT, WIDEST = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}, 2.571
"""Two-sided 95 % quantiles of Student's t by the number of seeds, and an upper limit for more than five seeds."""
PRODUCT, DRAFTS = OURS, "grouped drafts"
"""The baselines, without drafts and with them."""


@dataclass(frozen=True, slots=True)
class World:
    """A workload and its fleet. `model`: of lengths; `groups` of `size` requests; `chunk`: tokens of a quantum."""

    name: str
    fleet: ModelledFleet
    model: LengthModel
    groups: int
    size: int
    chunk: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A named system. `again`: it also runs in worlds where moved contexts are computed again."""

    name: str
    system: Callable[[World, int], System]
    drafts: int = 0
    again: bool = False


def worlds() -> Iterator[World]:
    """The paper's workloads, with contexts moved and with contexts computed again, and two with lengths that are harder
    to predict: Moonlight with a correlation of 0.4 within groups, and short responses on engines of 16 slots with
    enough memory."""
    for case in (case.scaled(PART) for case in CASES.values()):
        model = LengthModel(case.mean, case.cap, case.fit.spread, case.fit.correlation)
        facts = case.requests // case.group, case.group, case.chunk
        yield World(case.name, case.fleet(), model, *facts)
        yield World(f"{case.name}, again", case.fleet(network=None), model, *facts)
        if case.name == "moonlight":
            yield World("moonlight, 0.4", case.fleet(), replace(model, correlation=0.4), *facts)
    step = StepTime(((1.0, 0.005), (16.0, 0.0055)), 0.0, 1e-6)
    fleet = ModelledFleet(16, step, 1_600_000, slots=16, look_seconds=0.05)
    yield World("short, again", fleet, LengthModel(332, 2048, 1.2, 0.8), 512, 8, 256)


def candidates() -> list[Candidate]:
    """All candidates, in the order of the table."""

    def named(name: str, label: str = "", *, drafts: int = 0) -> Candidate:
        chosen: Any = name
        return Candidate(label or name, lambda world, _seed: divided_by(chosen, world.chunk), drafts, again=not drafts)

    def by_rules(label: str, rules: Rules, *, times: float = 1.0, probe: bool = True, again: bool = False) -> Candidate:
        product = policy(PRODUCT, probe=probe)
        return Candidate(
            label,
            lambda world, _seed: other(rules, round(world.chunk * times), _same_prior(world), product=product),
            again=again,
        )

    def earlier(
        label: str, rules: Rules | None = None, *, alike: float = EARLIER, times: float = POSSIBLE_OF_KNOWN
    ) -> Candidate:
        def system(world: World, seed: int) -> System:
            lengths, priors = earlier_lengths(world, seed, alike)
            return other(rules or Rules(), world.chunk, priors.__getitem__, lengths, possible_of_known(times))

        return Candidate(label, system)

    def drafting(label: str, longest: int, rules: Rules) -> Candidate:
        return Candidate(label, lambda world, _seed: other(rules, world.chunk, _same_prior(world)), longest)

    def left(label: str, index: Left, **more: Any) -> Candidate:
        return by_rules(label, Rules(left=index), **more)

    return [
        named(PRODUCT),
        named("seer"),
        named("longest-first-oracle", "oracle"),
        left("q95 of what is left", quantile(0.95), again=True),
        left("q80 of what is left", quantile(0.8), again=True),
        left("q50 of what is left", quantile(0.5)),
        left("q99 of what is left", quantile(0.99)),
        left("q95, no probes", quantile(0.95), probe=False),
        left("mean of what is left", mean),
        left("Gittins, longest first", gittins),
        left("Gittins, shortest first", lambda length, so_far: -gittins(length, so_far)),
        by_rules("fleet's lengths: q95", Rules(fleet=(0.95,)), again=True),
        by_rules("fleet's lengths: q80", Rules(fleet=(0.8,))),
        by_rules("fleet's lengths: Gittins, longest first", Rules(fleet=(None,))),
        by_rules("no probes", Rules(), probe=False, again=True),
        by_rules("2 probes", Rules(probes=lambda _view: 2), again=True),
        by_rules("3 probes", Rules(probes=lambda _view: 3)),
        by_rules("probes by spread", Rules(probes=by_spread)),
        earlier("earlier iteration"),
        earlier("earlier iteration, factor 4", times=4),
        earlier("earlier iteration, factor 6", times=6),
        earlier("earlier iteration: q95", Rules(left=quantile(0.95))),
        earlier("same prompts' lengths, no drift", alike=1.0),
        earlier("same prompts' lengths, no drift, factor 4", alike=1.0, times=4),
        earlier("same prompts' lengths, no drift, factor 6", alike=1.0, times=6),
        by_rules("chunk / 4", Rules(), times=0.25, again=True),
        by_rules("chunk / 2", Rules(), times=0.5, again=True),
        by_rules("chunk x 2", Rules(), times=2, again=True),
        Candidate(
            "chunk / 4 while anything waits",
            lambda world, _seed: other(Rules(waiting_chunk=world.chunk // 4), world.chunk, _same_prior(world)),
            again=True,
        ),
        named(PRODUCT, DRAFTS, drafts=8),
        drafting("drafts up to 16", 16, Rules()),
        drafting("drafts up to 32", 32, Rules()),
        drafting("drafts for a quarter in the tail", 8, Rules(tail_drafts=True)),
        drafting("drafts for a quarter in the tail, up to 32", 32, Rules(tail_drafts=True)),
    ]


def possible_of_known(times: float) -> Policy:
    """The product's policy, with another factor for groups whose earlier responses are known."""
    product = policy(PRODUCT)

    def priority(view: GroupView) -> Priority:
        placed, possible = (
            product.priority(view),
            min(times * max(estimate(view), view.longest_earlier), view.max_tokens),
        )
        return replace(placed, base=placed.base + longest_possible(view) - possible) if view.longest_earlier else placed

    return replace(product, priority=priority)


def by_spread(view: GroupView) -> int:
    """Number of probes: one, then a second, and a third if the first two lengths differ by more than the factor
    APART. A view without all lengths gets one probe."""
    lengths = getattr(view, "lengths", ())
    if len(lengths) < 2:
        return 1 + len(lengths)
    return 3 if max(lengths) > APART * min(lengths) else 1


def earlier_lengths(world: World, seed: int, alike: float) -> tuple[list[list[int]], list[GroupPrior]]:
    """Lengths of the previous iteration, and the prior of each group's typical length in this one that follows from
    them. `alike`: correlation of the logarithms of the typical lengths in both."""
    model, prior, chance = world.model, prior_of(world.model, world.fleet.block), random.Random(f"earlier {seed}")
    between, within = (model.spread * math.sqrt(part) for part in (model.correlation, 1 - model.correlation))
    lengths, priors = list[list[int]](), list[GroupPrior]()
    for typical in _typical(world, seed, between, within):
        before = alike * typical + math.sqrt(1 - alike**2) * chance.gauss(0, between)
        drawn = [model.centre() + before + chance.gauss(0, within) for _ in range(world.size)]
        lengths.append([min(model.cap, max(1, round(math.exp(value)))) for value in drawn])
        trust = between**2 / (between**2 + within**2 / world.size)
        shift = alike * trust * (statistics.fmean(drawn) - model.centre())
        spread = between * math.sqrt(1 - alike**2 * trust)
        priors.append(GroupPrior(prior.mean + shift, spread, within))
    return lengths, priors


def _typical(world: World, seed: int, between: float, within: float) -> Iterator[float]:
    """Offset of each group's log typical length from the centre, the same as `LengthModel.draw` draws for the seed."""
    chance = random.Random(seed)
    for _ in range(world.groups):
        yield chance.gauss(0, between)
        for _ in range(world.size):
            chance.gauss(0, within)


def _same_prior(world: World) -> Callable[[int], GroupPrior]:
    prior = prior_of(world.model, world.fleet.block)
    return lambda _ordinal: prior


def main() -> None:
    """Simulates the rollouts that the file lacks, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--only", nargs="+", default=[""], help="patterns; simulate only candidates with matching names"
    )
    parser.add_argument("--worlds", nargs="+", default=[""], help="patterns; simulate only worlds with matching names")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    done = {(row["world"], row["candidate"], row["seed"]) for row in rows}
    chosen = [item for item in candidates() if any(re.search(word, item.name) for word in options.only)]
    places = [world for world in worlds() if any(re.search(word, world.name) for word in options.worlds)]
    for seed in options.seeds:
        for candidate in chosen:
            for world in places:
                wanted = candidate.again or not world.name.endswith("again") or world.name.startswith("short")
                if wanted and (world.name, candidate.name, seed) not in done:
                    rows.append(row(world, candidate, seed))
                    with options.out.open("a") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
    print(table(rows))


def row(world: World, candidate: Candidate, seed: int) -> dict[str, Any]:
    """Simulates one rollout and returns its row of the file."""
    began, groups = time.process_time(), world.model.draw(world.groups, world.size, seed)
    drafts = replace(GROUPED, longest=candidate.drafts) if candidate.drafts else None
    fleet = replace(world.fleet, drafts=drafts)
    outcome = candidate.system(world, seed)(fleet, groups, world.model.cap)
    assert len(outcome.ends) == world.groups * world.size
    return {
        "world": world.name,
        "candidate": candidate.name,
        "seed": seed,
        "seconds": outcome.seconds,
        "tail_seconds": outcome.tail_seconds,
        "idle": outcome.idle,
        "moves": outcome.moves,
        "bound": 0.0 if drafts else least_seconds(fleet, groups),
        "cpu_seconds": time.process_time() - began,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: for each candidate and world the change of throughput against the product's order in %, its interval
    over the seeds (≈: one seed), and the seconds of the tail."""
    names = list(dict.fromkeys(row["world"] for row in rows))
    bounds = [
        {**row, "seconds": row["bound"], "tail_seconds": 0.0, "candidate": BOUND}
        for row in rows
        if row["candidate"] == PRODUCT
    ]
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for name, drafts in [*((item.name, item.drafts) for item in candidates()), (BOUND, 0)]:
        cells = [cell([*rows, *bounds], world, name, DRAFTS if drafts else PRODUCT) for world in names]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(rows: Sequence[dict[str, Any]], world: str, name: str, base: str) -> str:
    """The table's text for one candidate in one world, relative to the candidate `base`."""
    own = {row["seed"]: row for row in rows if row["world"] == world and row["candidate"] == name}
    others = {row["seed"]: row for row in rows if row["world"] == world and row["candidate"] == base}
    seeds = sorted(own.keys() & others.keys())
    if not seeds:
        return "–"
    if name == base:
        return ", ".join(
            f"{statistics.fmean(row[key] for row in own.values()):,.0f} s" for key in ("seconds", "tail_seconds")
        )
    gains = [100 * (others[seed]["seconds"] / own[seed]["seconds"] - 1) for seed in seeds]
    gain, tail = statistics.fmean(gains), statistics.fmean(own[seed]["tail_seconds"] for seed in seeds)
    if len(seeds) == 1:
        return f"≈ {gain:+.1f}, {tail:,.0f} s"
    error = STUDENT.get(len(seeds), WIDEST) * statistics.stdev(gains) / math.sqrt(len(seeds))
    return f"{gain:+.1f} ± {error:.1f}, {tail:,.0f} s"


if __name__ == "__main__":
    main()
