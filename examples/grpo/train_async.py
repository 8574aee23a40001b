"""The GRPO of train.py, asynchronous: the fleet samples during the optimizer steps, from weights of earlier versions.

Each iteration takes the finished groups, opens a batch that continues the unfinished ones, and learns while the fleet
samples. New weights apply to running responses (`mode="keep"`): the loss corrects each token by the log-probability
with which it was sampled, and responses whose weights are too old are ended.
"""

import argparse
from itertools import islice
from typing import Any

from problems import reward_of
from train import Training, parser_of, run

from openseer_client import BatchHandle, BatchSpec, Client, FinishedGroup, RewardPool, Target


class AsyncTraining(Training):
    """Trains a model on responses that its latest versions sampled."""

    def __init__(self, client: Client, options: argparse.Namespace) -> None:
        super().__init__(client, options)
        self.number: dict[str, int] = {}  # iteration of each version
        self.pool = RewardPool(reward_of, options.reward_processes)

    def train(self) -> None:
        """Takes `iterations` steps. Evaluates every `eval_every` iterations, and after the last step."""
        self.wait()
        last = self.options.iterations
        row = self.follow(0)
        batch = self.open()
        with self.pool:
            for iteration in range(last):
                with self.phases("rollout"):
                    groups, metrics = self.gather(batch)
                row |= metrics | self.staleness(groups, iteration)
                if iteration + 1 < last:
                    batch = self.open()  # from here on the fleet samples for the next iteration
                with self.phases("train"):
                    row |= self.learn(groups)
                self.note(row)
                row = self.follow(iteration + 1)
        self.note(row)

    def follow(self, iteration: int) -> dict[str, Any]:
        """Publishes this iteration's weights while responses continue; evaluates them every `eval_every` iterations."""
        version = f"{self.run}-{iteration}"
        self.number[version] = iteration
        row: dict[str, Any] = {"iteration": iteration, "version": version}
        with self.phases("publish"):
            row |= self.publish(version, mode="keep", max_staleness=self.options.max_staleness)
        if iteration % self.options.eval_every == 0 or iteration == self.options.iterations:
            with self.phases("eval"):
                row |= self.evaluate(version)
        return row

    def open(self) -> BatchHandle:
        """Opens the next batch, with the unfinished groups of the previous one and new groups."""
        options = self.options
        spec = BatchSpec(
            sampling=self.sampling,
            group_size=options.group_size,
            target=Target(groups=options.groups, count="valid", rest="carry"),
            carry=True,
            max_staleness=options.max_staleness,
        )
        batch = self.client.open_batch(spec)
        batch.submit(islice(self.supply, options.groups + options.spare_groups))
        return batch

    def rewards(self, group: FinishedGroup) -> list[float]:
        """Returns the reward of each response of a finished group, computed in other processes."""
        return self.pool.rewards(group)

    def staleness(self, groups: list[FinishedGroup], iteration: int) -> dict[str, float]:
        """Returns the staleness of the tokens: the iteration that learns from a token minus the one that sampled it.

        Raises RuntimeError if it exceeds `max_staleness` + 1.
        """
        spans = [span for group in groups for item in group.results for span in item.versions]
        behind = [iteration - self.number[span.version] for span in spans]
        # A response may end just before the publish that would have ended it.
        if max(behind) > self.options.max_staleness + 1:
            raise RuntimeError(f"a token is {max(behind)} versions old, allowed: {self.options.max_staleness + 1}")
        tokens = [span.end - span.start for span in spans]
        mean = sum(count * age for count, age in zip(tokens, behind, strict=True)) / sum(tokens)
        return {"staleness_max": max(behind), "staleness_mean": mean}


if __name__ == "__main__":
    parser = parser_of(__doc__)
    parser.add_argument("--max-staleness", type=int, default=2, help="versions that a running response may be behind")
    parser.add_argument("--reward-processes", type=int, default=1)
    run(AsyncTraining, parser.parse_args())
