"""Translates the manifest to vLLM's engine arguments and sampling parameters, and vLLM's errors to readable ones."""

import os
import secrets
import traceback
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from pydantic import ValidationError
from vllm import SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.exceptions import VLLMValidationError

from openseer_core.errors import ModelError, OpenseerError
from openseer_core.manifest.job import Logprobs, Lora, Model, Parallelism, Speculation
from openseer_text.model_files import UNTRUSTED, asks_for_trust, check_place
from openseer_worker.engine import EngineRequest
from openseer_worker.gang import GangPlace
from openseer_worker.kv_pool.places import EnginePool
from openseer_worker.vllm.kv_pool.arguments import KV_PLACE, pool_values
from openseer_worker.vllm.routing.capture import ROWS_FROM
from openseer_worker.vllm.routing.shape import OPTION

DRAFT_METHOD = "custom_class"
"""vLLM's name for drafts from a proposer class in its options."""
_LOGPROBS_MODES = {"sampled": "processed_logprobs", "raw": "raw_logprobs", "none": "processed_logprobs"}
_CPU_KV_BYTES = 256 * 2**20
# Small blocks waste less of a small cache than vLLM's default of 128.
_CPU_BLOCK_TOKENS = 32
# Each of these arguments sets the memory of the KV cache.
_KV_SIZES = frozenset({"kv_cache_memory_bytes", "gpu_memory_utilization"})
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM allows as the largest rank."""
REFUSALS = (ValueError, VLLMValidationError)
"""vLLM's errors for an invalid request: some checks raise ValueError, others VLLMValidationError, which is not one."""
_REASON_CHARS = 500
_DULL_LINES = ("Traceback", "For further information", "During handling")


def engine_arguments(
    model: Model,
    parallelism: Parallelism,
    logprobs: Logprobs,
    *,
    on_cpu: bool,
    place: GangPlace | None = None,
    speculation: Speculation | None = None,
    pool: EnginePool | None = None,
    routes: bool = False,
) -> EngineArgs:
    """Returns the arguments of the engine, in a gang of its rank at `place`. `speculation`: None for an engine without
    drafts; `pool`: None without a KV pool; `routes`: whether routed experts are captured.

    Raises ModelError for arguments that vLLM lacks or refuses.
    """
    known = {field.name for field in fields(EngineArgs)}
    unknown = sorted(set(model.engine_args) - known)
    if unknown:
        raise ModelError(f"spec.model.engineArgs: vLLM has no argument {', '.join(unknown)}")
    check_place("spec.model.path", model.path)
    if model.tokenizer:
        check_place("spec.model.tokenizer", model.tokenizer)
    values: dict[str, Any] = {
        "use_tqdm_on_load": False,
        "worker_extension_cls": "openseer_worker.vllm.extension.WorkerExtension",
    }
    if on_cpu and parallelism.pipeline > 1:
        # Pipeline stages need vLLM's warm-up, which it skips on a CPU without compilation.
        raise ModelError("spec.workers.parallelism.pipeline: found more than 1, allowed on CPUs: 1; use tensor")
    if on_cpu:
        values |= _cpu_defaults(model)
    # Null in the manifest means unset; not all of vLLM's arguments accept None.
    values |= {name: value for name, value in model.engine_args.items() if value is not None}
    values |= {
        "model": model.path,
        "tokenizer": model.tokenizer,
        "revision": model.revision,
        "tokenizer_revision": None if model.tokenizer else model.revision,
        "dtype": model.dtype,
        "tensor_parallel_size": parallelism.tensor,
        "pipeline_parallel_size": parallelism.pipeline,
        "logprobs_mode": _LOGPROBS_MODES[logprobs],
        "enable_prefix_caching": True,
        "disable_log_stats": False,
        # With vLLM's default seed of 0 all workers would sample the same random numbers for requests without a seed.
        "seed": secrets.randbits(31),
    }
    if model.lora is not None:
        values |= _lora_values(model.lora, on_cpu=on_cpu)
    if speculation is not None or routes:
        own = model.engine_args.get("additional_config")
        values |= _draft_values(speculation, logprobs, own, on_cpu=on_cpu, routes=routes)
    values |= pool_values(pool)
    if place is not None:
        values |= _gang_values(place)
    with readable("spec.model.engineArgs: vLLM refuses them"):
        return EngineArgs(**values)


def sampling_params(
    request: EngineRequest, remaining: int, stop_token_ids: Sequence[int] = (), *, log_probabilities: bool
) -> SamplingParams:
    """Returns vLLM's parameters of a request for at most `remaining` more tokens, without stop strings: the worker
    checks stop strings itself.

    `stop_token_ids`: the tokens of stop strings that are a single token.
    """
    sampling = request.sampling
    if sampling.score_from is not None:
        # Prompt log-probabilities are always the model's own; logprobs_mode concerns sampled tokens only.
        return SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=sampling.top_logprobs, detokenize=False)
    forced = is_forced(request)
    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        max_tokens=remaining,
        min_tokens=0 if forced else min(remaining, max(0, sampling.min_tokens - len(request.tokens))),
        stop_token_ids=[] if forced else [*sampling.stop_token_ids, *stop_token_ids],
        seed=request.seed,
        ignore_eos=forced or sampling.ignore_eos,
        logprobs=sampling.top_logprobs if log_probabilities else None,
        detokenize=False,
        extra_args={
            "group": request.group,
            "index": request.index,
            "response_start": len(request.prompt),
            KV_PLACE: request.kv_place,
            ROWS_FROM: request.rows_from,
        },
        # vLLM computes no rows of routed experts for cached tokens.
        skip_reading_prefix_cache=request.rows_from == 0,
    )


def drop_stops_past(vocabulary: int, params: SamplingParams) -> None:
    """Removes ids past the vocabulary from the ids that `min_tokens` masks: vLLM uses them as indices without a check.

    The masked ids include the end-of-sequence tokens of the tokenizer and of the generation config.
    """
    masked = params.all_stop_token_ids
    masked.difference_update([token for token in masked if token >= vocabulary])


def is_forced(request: EngineRequest) -> bool:
    """Whether the length of the response is given, so that no token ends it."""
    return request.sampling.force_lengths and request.true_length > 0


def token_limit(request: EngineRequest) -> int:
    """The length limit of the whole response, in tokens."""
    return request.true_length if is_forced(request) else request.max_tokens


@contextmanager
def readable(what: str, model: Model | None = None) -> Generator[None]:
    """Turns vLLM's errors into a ModelError that begins with `what`; openseer's own errors pass. `model`: the model
    that vLLM loads, None if it loads none."""
    try:
        yield
    except OpenseerError:
        raise
    except Exception as error:
        if model is not None and asks_for_trust(model, error):
            raise ModelError(f"{what}, {UNTRUSTED}") from error
        raise ModelError(f"{what}: {_reason(error)}") from error


def _cpu_defaults(model: Model) -> dict[str, Any]:
    """Defaults that make an engine on a CPU start fast and small; the user's arguments override them."""
    values: dict[str, Any] = {
        "enforce_eager": True,
        "block_size": _CPU_BLOCK_TOKENS,
        "worker_extension_cls": "openseer_worker.vllm.cpu.CpuWorkerExtension",
        "scheduler_cls": "openseer_worker.vllm.cpu.CpuScheduler",
    }
    if not _KV_SIZES & set(model.engine_args) and "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
        values["kv_cache_memory_bytes"] = _CPU_KV_BYTES
    return values


def _draft_values(
    speculation: Speculation | None, logprobs: Logprobs, own: Any, *, on_cpu: bool, routes: bool
) -> dict[str, Any]:
    """Returns arguments that make vLLM draft with our proposer, which reads its options from `additional_config`.

    `own`: the user's `additional_config`. Without `speculation` the proposer captures routed experts and never drafts.
    """
    most, memory = (1, 0) if speculation is None else (speculation.max_tokens, speculation.memory_megabytes * 2**20)
    scheduler = "cpu.CpuDraftScheduler" if on_cpu else "drafting.scheduler.DraftScheduler"
    return {
        "speculative_config": {
            "method": DRAFT_METHOD,
            "model": "openseer_worker.vllm.drafting.proposer.GroupProposer",
            "num_speculative_tokens": most,
        },
        "scheduler_cls": f"openseer_worker.vllm.{scheduler}",
        "additional_config": {
            **(own if isinstance(own, dict) else {}),
            "openseer_drafts": {
                "memory_bytes": memory,
                "logprobs": logprobs != "none",
                "never": speculation is None,
            },
            OPTION: routes,
        },
    }


def most_adapters(lora: Lora | None) -> int:
    """Returns the limit of loaded adapters: one above the job's limit, since a replaced adapter stays until its
    successor is loaded."""
    return 0 if lora is None else lora.max_adapters + 1


def _lora_values(lora: Lora, *, on_cpu: bool) -> dict[str, Any]:
    """Returns the arguments for adapters, with a slot for each: vLLM would read an evicted adapter again from its
    folder, and the folder's content may have changed.

    Requests without an adapter have slot -1; torch's operations, which CPUs use, index the last slot with it
    (lora/ops/torch_ops). So CPUs get one slot more. It stays empty, since vLLM fills the first free slot.
    """
    most = most_adapters(lora) + on_cpu
    return {
        "enable_lora": True,
        "max_lora_rank": next(rank for rank in _LORA_RANKS if rank >= lora.max_rank),
        "max_loras": most,
        "max_cpu_loras": most,
        "lora_target_modules": list(lora.target_modules),
    }


def _gang_values(place: GangPlace) -> dict[str, Any]:
    """Returns the arguments for an engine on one node of a gang: vLLM's own multi-node executor, without Ray."""
    return {
        "distributed_executor_backend": "mp",
        "nnodes": place.nodes,
        "node_rank": place.rank,
        "master_addr": place.leader,
        "master_port": place.port,
        "seed": place.seed,
    }


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        parts = [f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}".lstrip(": ") for entry in error.errors()]
        return "; ".join(parts)[:_REASON_CHARS]
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line and not line.startswith(_DULL_LINES)]
    return " ".join(telling)[:_REASON_CHARS] or _place(error)


def _place(error: Exception) -> str:
    """The class and the place of an error without text."""
    frames = traceback.extract_tb(error.__traceback__)
    return type(error).__name__ + (f" in {frames[-1].name}: {frames[-1].line}" if frames else "")
