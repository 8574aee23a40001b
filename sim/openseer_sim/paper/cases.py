"""Defines the paper's three workloads as cases of the simulator: model, GPUs, requests, fitted and assumed values.

GPUs that work together (tensor or expert parallel) are one engine with the sum of their bandwidths and operations.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from openseer_sim.drafts import DraftModel
from openseer_sim.engine import StepTime
from openseer_sim.fleet import ModelledFleet
from openseer_sim.paper.figures import GROUPED_TOKENS, KIMI, MOONLIGHT, QWEN, PaperFigures
from openseer_sim.work import GroupLengths, LengthModel

# One H800 SXM, by NVIDIA's data sheet of the Hopper GPUs: memory and bandwidth of an H100; operations in dense bf16.
GPU_BYTES = 80e9
GPU_BANDWIDTH = 3.35e12
GPU_FLOPS = 989e12

NETWORK = 25e9
"""Rate at which contexts move between instances, in bytes per second and GPU: half of a port of 400 Gb/s. Assumed: the
paper names RDMA, but no rate."""

MEMORY_SHARE = 0.65
"""Share of a GPU's memory for weights and KV. Assumed: in synchronous training on the same GPUs, the trainer's buffers,
activations and graphs take the rest."""

LAUNCH = 0.004
"""Seconds per step at the published peaks, besides reading and computing: launches, sampling, the engine's own loop."""

GROUPED = DraftModel.of_lengths(GROUPED_TOKENS)

POINTS = tuple(2.0**power for power in range(14))
"""Tokens of a step for which the step's time is computed; between them it is interpolated."""


@dataclass(frozen=True, slots=True)
class PaperModel:
    """Sizes of a model on one instance. `dense`: bytes of the weights that every token needs; `experts`: bytes of all
    experts of all layers. `routed`: number of experts per layer, and number of them that compute a token. `active`:
    parameters that compute a token. `kv_bytes`: bytes per token of context. `exchange`: seconds per step in which GPUs
    wait for one another. `copies`: copies of the dense weights in an instance: one per rank with its own requests."""

    dense: float
    experts: float
    routed: tuple[int, int]
    active: float
    kv_bytes: float
    exchange: float = 0.0
    copies: int = 1

    @property
    def weights(self) -> float:
        """Bytes of weights in an instance."""
        return self.copies * self.dense + self.experts

    def read(self, tokens: float) -> float:
        """Bytes of weights that a step of `tokens` tokens reads, on average, if experts are chosen uniformly."""
        of, chosen = self.routed
        return self.copies * self.dense + self.experts * (1 - (1 - chosen / of) ** tokens)


@dataclass(frozen=True, slots=True)
class Fit:
    """The result of `calibrate`, from the paper's results for veRL only, for a given correlation.

    `efficiency`: ratio of a step's speed to the published peaks, from veRL's total seconds. `spread`: spread of lengths
    (see LengthModel), from the share of veRL's tail in its total. `per_draft`: seconds per drafted token, from the row
    veRL + SD.
    """

    efficiency: float
    spread: float
    per_draft: float
    correlation: float = 0.8


@dataclass(frozen=True, slots=True)
class PaperCase:
    """A workload. `requests`, `group`: number of responses per iteration, and per prompt; `mean`, `cap`: mean and limit
    of a response's tokens; `slots`: limit of concurrent responses of an instance; `chunk`: tokens of a quantum, which
    the paper does not state."""

    name: str
    model: PaperModel
    gpus: int
    gpus_per_instance: int
    requests: int
    group: int
    mean: float
    cap: int
    slots: int
    chunk: int
    figures: PaperFigures
    fit: Fit

    @property
    def instances(self) -> int:
        """Number of engines of the fleet."""
        return self.gpus // self.gpus_per_instance

    @property
    def kv_tokens(self) -> int:
        """Tokens of context that fit into an instance."""
        memory = MEMORY_SHARE * GPU_BYTES * self.gpus_per_instance
        return int((memory - self.model.weights) / self.model.kv_bytes)

    def scaled(self, part: float) -> "PaperCase":
        """The case with a share `part` of its instances, at least two, and the same number of requests for each."""
        instances = max(2, round(self.instances * part))
        groups = max(1, round(self.requests / self.group * instances / self.instances))
        return replace(self, gpus=instances * self.gpus_per_instance, requests=groups * self.group)

    def step(self) -> StepTime:
        """Step times of one instance, at the published peaks multiplied by the efficiency."""
        model, all_gpus = self.model, self.gpus_per_instance
        bandwidth = GPU_BANDWIDTH * all_gpus * self.fit.efficiency
        computing = 2 * model.active / (GPU_FLOPS * all_gpus * self.fit.efficiency)
        overhead = (LAUNCH + model.exchange) / self.fit.efficiency
        points = ((n, max(model.read(n) / bandwidth, n * computing) + overhead) for n in POINTS)
        return StepTime(tuple(points), model.kv_bytes / bandwidth, computing, self.fit.per_draft)

    def fleet(self, drafts: DraftModel | None = None, *, network: float | None = NETWORK) -> ModelledFleet:
        """The fleet of the case. `network`: bytes per second and GPU for contexts that move; None: they are computed
        again.

        Each worker's loop runs at most a thousand times in the duration of veRL's iteration, so a worker detects the
        end of a response later by at most this interval.
        """
        return ModelledFleet(
            self.instances,
            self.step(),
            self.kv_tokens,
            slots=self.slots,
            move_seconds=self.model.kv_bytes / (network * self.gpus_per_instance) if network else None,
            look_seconds=self.figures.verl_total / 1000,
            drafts=drafts,
        )

    def work(self, seed: int) -> Sequence[GroupLengths]:
        """The groups of one iteration."""
        lengths = LengthModel(self.mean, self.cap, self.fit.spread, self.fit.correlation)
        return lengths.draw(self.requests // self.group, self.group, seed)


_CASES = (
    PaperCase(
        "moonlight",
        # Moonlight-16B-A3B, config.json (DeepseekV3): 27 layers, the first dense; of latent attention 512 + 64 numbers
        # a layer in bf16; 26 layers of 64 experts of 3 x 2048 x 1408, of which 6 compute a token. 32 GB by the paper.
        PaperModel(3.2e9, 28.8e9, (64, 6), 2.9e9, 27 * 576 * 2),
        gpus=32,
        gpus_per_instance=1,
        requests=3200,
        group=8,
        mean=22_386,
        cap=65_536,
        slots=256,
        chunk=512,
        figures=MOONLIGHT,
        fit=Fit(0.656, 1.2, 190e-6),
    ),
    PaperCase(
        "qwen2-vl-72b",
        # Qwen2-VL-72B, config.json: 80 layers, 8 heads of keys and values of 128 numbers in bf16; dense. TP8: two sums
        # over the GPUs a layer, 15 microseconds each.
        PaperModel(146e9, 0.0, (1, 1), 72.7e9, 80 * 2 * 8 * 128 * 2, exchange=80 * 2 * 15e-6),
        gpus=128,
        gpus_per_instance=8,
        requests=9600,
        group=16,
        mean=7_615,
        cap=40_960,
        slots=512,
        chunk=512,
        figures=QWEN,
        fit=Fit(0.61, 1.4, 460e-6),
    ),
    PaperCase(
        "kimi-k2",
        # Kimi-K2, config.json (DeepseekV3): 61 layers, latent attention as above; 60 layers of 384 experts of
        # 3 x 7168 x 2048 in fp8, of which 8 compute a token; 32e9 active. 1000 GB by the paper. DP32 + EP32: experts
        # are spread over 32 GPUs; two exchanges a layer between four nodes, 60 microseconds each.
        PaperModel(12e9, 988e9, (384, 8), 32e9, 61 * 576 * 2, exchange=61 * 2 * 60e-6, copies=32),
        gpus=256,
        gpus_per_instance=32,
        requests=6400,
        group=8,
        mean=38_959,
        cap=98_304,
        slots=1024,
        chunk=2048,
        figures=KIMI,
        fit=Fit(0.672, 1.2, 45e-6),
    ),
)

CASES = {case.name: case for case in _CASES}
