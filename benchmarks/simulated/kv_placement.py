"""Simulates claims that prefer requests whose KV cache is at the claiming engine, on the paper's workloads.

    PYTHONPATH=benchmarks python benchmarks/simulated/kv_placement.py --out placed.jsonl [--seeds 1 2 3]

A response that continues at its last engine finds its context there, at no cost, even if that engine has been full
since. This is an upper bound of the contexts that a real engine's cache keeps. `own first`: a claim takes the best of
the requests that ran last at the claiming engine, if it is at most the given number of quanta behind the best request
of all; otherwise the best request of all, as in the product. `free`: contexts move in no time, which is the upper bound
of any choice of engines. Each line of the file is one simulated rollout. At the end a table is printed, with throughput
relative to the product's claims (docs/policies-tried.md).
"""

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from openseer_core.ids import RequestId, WorkerId
from openseer_core.manifest.fleet import RolloutSpec
from openseer_core.model.job_queue import JobQueue
from openseer_core.model.state import blocks_needed
from openseer_core.queue.group import SHARED_LANE
from openseer_core.queue.messages import Claim, ClaimQuery, Delta, Reply
from openseer_core.queue.states import State
from openseer_core.tokens import count_items
from openseer_sim.divided import DividedRollout, SimulatedWorker
from openseer_sim.paper.cases import CASES, NETWORK, PaperCase
from openseer_sim.systems import OURS

PART = 0.25
"""Simulated share of each fleet, as in `openseer simulate paper --quick`."""
SPEEDS = {"25 GB/s": NETWORK, "2.5 GB/s": NETWORK / 10}
"""Speed at which contexts move between engines, in bytes per second and GPU."""
PRODUCT, FREE = "as the product", "free"
QUANTA = {PRODUCT: 0, "own first, 1 quantum": 1, "own first, 8 quanta": 8}


class OwnFirstQueue(JobQueue):
    """The queue with claims that prefer requests that ran last at the claiming engine, if they are at most `quanta`
    quanta behind the best one."""

    def __init__(self, quanta: int) -> None:
        super().__init__()
        self._quanta = quanta
        self._left: defaultdict[str, dict[RequestId, None]] = defaultdict(dict)

    def give_back(self, deltas: list[Delta], now: float, *, lost: bool = False) -> list[Reply]:
        for delta in deltas:
            self._left[self._request(delta.request).holder][delta.request] = None
        return super().give_back(deltas, now, lost=lost)

    def claim(self, worker: WorkerId, query: ClaimQuery, now: float) -> list[Claim]:
        own = self._best_own(worker, query) if self._quanta else None
        if own is None:
            return super().claim(worker, query, now)
        return [self._lease(self._groups[own.group], own.index, worker, query, now)]

    def _best_own(self, worker: WorkerId, query: ClaimQuery) -> RequestId | None:
        left, load = self._left[str(worker)], self.fleet_load(worker, query.versions, (SHARED_LANE,))
        for request in list(left):
            state = self._request(request)
            if state.state is not State.QUEUED or state.holder != str(worker):
                del left[request]
        if not left or load.may_claim(query) <= 0:
            return None
        best = min(left, key=lambda request: (self._score(request), str(request)))
        if self._score(best) > load.best_waiting + self._quanta * query.quantum:
            return None
        needed = blocks_needed(self._groups[best.group], best.index, query, ends=True)
        return best if needed <= query.blocks else None

    def _score(self, request: RequestId) -> float:
        state, priority = self._request(request), self._groups[request.group].priority
        return priority.request_score(state.bias, state.generated, is_probe=False)


class KeepingWorker(SimulatedWorker):
    """An instance that keeps the contexts of all requests that ran there."""

    def _begin(self, claim: Claim) -> None:
        rollout, request = self._rollout, str(claim.request)
        assert isinstance(rollout, PlacedRollout)
        fleet, at_home = rollout.fleet, rollout.homes.get(request) == self.number
        rollout.homes[request] = self.number
        context = fleet.block * (count_items(claim.prompt) + claim.generated)
        rollout.tokens["at home" if at_home else "elsewhere"] += context if claim.generated else 0
        if not at_home:
            super()._begin(claim)
            return
        self.engine.add(claim.key, context, fleet.block * (claim.true_length - claim.generated))


class PlacedRollout(DividedRollout):
    """A rollout on KeepingWorkers. `homes`: the last instance of each response; `tokens`: context tokens of resumed
    responses, at the same instance or at another one."""

    worker_type = KeepingWorker

    def __init__(self, case: PaperCase, seed: int, network: float, quanta: int) -> None:
        self.queue_type = lambda: OwnFirstQueue(quanta)
        self.homes, self.tokens = dict[str, int](), dict.fromkeys(("at home", "elsewhere"), 0)
        rollout = RolloutSpec(policy=OURS, quantum_tokens=case.chunk)
        super().__init__(case.fleet(network=network), case.work(seed), case.cap, rollout)


def main() -> None:
    """Simulates the rollouts that the file lacks, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    done = {(row["case"], row["speed"], row["claims"], row["seed"]) for row in rows}
    arms = [(FREE, float("inf"), PRODUCT), *((*speed, claims) for speed in SPEEDS.items() for claims in QUANTA)]
    for seed in options.seeds:
        for case in CASES.values():
            for speed, network, claims in arms:
                if (case.name, speed, claims, seed) in done:
                    continue
                rollout = PlacedRollout(case.scaled(PART), seed, network, QUANTA[claims])
                seconds, facts = rollout.run().seconds, {"case": case.name, "speed": speed, "claims": claims}
                rows.append({**facts, "seed": seed, "seconds": seconds, "tokens": rollout.tokens})
                with options.out.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print(table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: gains over the product's claims in % by seed, and the share of context tokens found at the instance."""
    lines = ["| | | claims | gain in %, by seed | of contexts at home |", "|---|---|---|---|---|"]
    for case in CASES:
        for speed in SPEEDS:
            runs = {
                (claims, row["seed"]): row
                for row in rows
                if row["case"] == case and row["speed"] in (speed, FREE)
                for claims in ((FREE if row["speed"] == FREE else row["claims"]),)
            }
            seeds = sorted({seed for _, seed in runs})
            for claims in (*QUANTA, FREE):
                own = [runs[claims, seed] for seed in seeds if (claims, seed) in runs]
                gains = [100 * (runs[PRODUCT, row["seed"]]["seconds"] / row["seconds"] - 1) for row in own]
                homes = [row["tokens"]["at home"] / max(1, sum(row["tokens"].values())) for row in own]
                shown = ", ".join(f"{gain:+.1f}" for gain in gains)
                lines.append(f"| {case} | {speed} | {claims} | {shown} | {statistics.fmean(homes):.0%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
