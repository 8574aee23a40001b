"""The engine arguments of each way: without drafts, with the product's drafts, and with vLLM's own draft methods."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from openseer_core.manifest.job import Model, Parallelism, Speculation
from openseer_worker.gpu_bench.plan import DRAFTS, EXACTNESS, NGRAM, SMOKE, SUFFIX, Part
from openseer_worker.gpu_bench.rates import GROUPED, MOST, PROMPT_LOOKUP
from openseer_worker.gpu_bench.shapes import Scale

TIERS: dict[str, dict[str, Any]] = {
    "compiled as vLLM chooses": {},
    "not compiled": {"compilation_config": {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"}},
    "eager": {"enforce_eager": True},
}
"""vLLM's compilation settings. All ways use the first settings that pass the smoke test: a machine's torch.compile or
compiler may not work, and full graphs need neither."""
DEFAULT_TIER = next(iter(TIERS))
"""vLLM's default settings; only with them `stock` is vLLM's default engine."""
_PROPOSER = "openseer_worker.gpu_bench.fixed.FixedProposer"
_DRAFT_MEGABYTES = 256
_LENGTHS_OF_BATCHES = [[1, 1, 8], [2, 2, 3], [3, 3, 1], [4, 4, 0]]
"""Draft lengths by batch (first batch, last batch, length) for which vLLM's V2 runner captures full graphs; `stepping`
chooses among the lengths."""


@dataclass(frozen=True)
class Order:
    """The order to a process for one engine. `dummy`: the model has random weights; `exact`: it has real weights, so
    its texts can be compared."""

    way: str
    parts: tuple[Part, ...]
    folder: str
    model: str
    dummy: bool
    exact: bool
    most: int
    """The largest batch of all parts of the run, measured parts included, so that all its engines are built alike."""
    scale: Scale
    tier: str
    seconds: float
    on_cpu: bool

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> "Order":
        values = json.loads(line)
        parts = tuple(Part(**part) for part in values.pop("parts"))
        return cls(parts=parts, scale=Scale(**values.pop("scale")), **values)


def rates_of(way: str) -> tuple[float, ...]:
    """Returns the acceptance rates of a way. `suffix` has the rates of our drafts: in a replay it had 2.34 tokens per
    step, our drafts 2.29 (benchmarks/drafting.py)."""
    return PROMPT_LOOKUP if way == NGRAM else GROUPED


def engine_values(order: Order) -> dict[str, Any]:
    """Returns the arguments of every engine of a run, in addition to the product's."""
    values: dict[str, Any] = {
        "max_num_seqs": order.most,
        "max_num_batched_tokens": max(8192, order.most * (MOST + 1)),
        "max_model_len": order.scale.room,
    }
    if order.dummy:
        values |= {"load_format": "dummy", "skip_tokenizer_init": True}
    if not order.on_cpu:
        # Less than vLLM's default of 0.92: its measurement does not include the memory that V1 needs to verify many
        # drafts at once.
        values["gpu_memory_utilization"] = 0.88
    return values | TIERS[order.tier]


def engine_arguments_of(order: Order) -> Any:
    """Returns vLLM's EngineArgs for an order."""
    from openseer_worker.vllm.arguments import engine_arguments

    model: dict[str, Any] = {"path": order.model, "engineArgs": engine_values(order)}
    if order.way in (SMOKE, EXACTNESS) and order.on_cpu:
        # With this precision no two tokens are equally likely, so that the texts must be equal.
        model["dtype"] = "float32"
    drafts = order.way in (DRAFTS, EXACTNESS)
    arguments: Any = engine_arguments(
        Model.model_validate(model),
        Parallelism(),
        "sampled",
        on_cpu=order.on_cpu,
        speculation=Speculation(max_tokens=MOST, memory_megabytes=_DRAFT_MEGABYTES) if drafts else None,
    )
    if drafts:
        arguments.speculative_config = {**arguments.speculative_config, "model": _PROPOSER}
    elif order.way == NGRAM:
        arguments.speculative_config = {
            "method": "ngram" if order.on_cpu else "ngram_gpu",
            "num_speculative_tokens": MOST,
            "prompt_lookup_min": 2,
            "prompt_lookup_max": 5,
            "num_speculative_tokens_per_batch_size": _LENGTHS_OF_BATCHES,
        }
    elif order.way == SUFFIX:
        arguments.speculative_config = {"method": "suffix", "num_speculative_tokens": MOST}
    if order.way in (DRAFTS, NGRAM, SUFFIX) and not order.on_cpu:
        arguments.speculative_config |= {
            "rejection_sample_method": "synthetic",
            "synthetic_acceptance_rates": list(rates_of(order.way)),
        }
    return arguments
