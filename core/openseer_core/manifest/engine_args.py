"""Engine arguments that a manifest must not set, each with the reason or the field to set instead.

docs/engine-features.md describes their use in vLLM. All other arguments are passed to the engine unchanged.
"""

_POD_OF_GANG = "set spec.workers.parallelism.nodes; openseer gives each pod of a worker its place"
_OPENSEER_DRAFTS = "set spec.speculation; openseer has its own drafter"
_NO_API_SERVER = "vLLM's API servers do not run here; openseer calls the engine directly"

OWNED_ENGINE_ARGS = {
    "model": "set spec.model.path",
    "tokenizer": "set spec.model.tokenizer",
    "revision": "set spec.model.revision",
    "dtype": "set spec.model.dtype",
    "seed": "set spec.sampling.seed",
    "logprobs_mode": "set spec.sampling.logprobs",
    "enable_prefix_caching": "always on: a response continues from its own cached tokens",
    "scheduling_policy": "set spec.rollout.policy; openseer orders the requests",
    "speculative_config": _OPENSEER_DRAFTS,
    "spec_method": _OPENSEER_DRAFTS,
    "spec_model": _OPENSEER_DRAFTS,
    "spec_tokens": _OPENSEER_DRAFTS,
    "tensor_parallel_size": "set spec.workers.parallelism.tensor",
    "pipeline_parallel_size": "set spec.workers.parallelism.pipeline",
    "nnodes": "set spec.workers.parallelism.nodes",
    "node_rank": _POD_OF_GANG,
    "master_addr": _POD_OF_GANG,
    "master_port": _POD_OF_GANG,
    "distributed_executor_backend": "set spec.workers.parallelism; openseer starts the processes of a worker",
    "device_ids": "openseer gives each worker its GPUs; set CUDA_VISIBLE_DEVICES to choose among a machine's",
    "worker_cls": "openseer extends vLLM's own worker",
    "worker_extension_cls": "openseer extends vLLM's own worker",
    "scheduler_cls": "openseer sets it: vLLM's own, or with drafts one that does not pad",
    "tokenizer_revision": "set spec.model.revision, or spec.model.tokenizer",
    "disable_log_stats": "always off: openseer reads the engine's statistics",
}
"""Argument → reason or field, for arguments that openseer sets itself, or on whose default it relies."""

_DATA_PARALLEL = (
    "a worker is one engine; set spec.workers.replicas for more engines, or spread the experts of one over "
    "spec.workers.parallelism.tensor GPUs with enable_expert_parallel"
)
_HALVES = "vLLM overlaps the halves of a batch only between data parallel ranks, and a worker has none"
_NOT_IN_RESULTS = "results do not contain it, so the engine would compute it in vain"
_LORA = "set spec.model.lora"
_TEXT_ONLY = "requests hold text tokens only"

UNFIT_ENGINE_ARGS = {
    **dict.fromkeys(
        (
            "data_parallel_size",
            "data_parallel_rank",
            "data_parallel_start_rank",
            "data_parallel_size_local",
            "data_parallel_address",
            "data_parallel_rpc_port",
            "data_parallel_hybrid_lb",
            "data_parallel_external_lb",
            "data_parallel_multi_port_external_lb",
            "data_parallel_backend",
            "dp_sync_interval",
            "disable_nccl_for_dp_synchronization",
        ),
        _DATA_PARALLEL,
    ),
    "prefill_context_parallel_size": "it needs GPUs that openseer does not ask for; set "
    "spec.workers.parallelism.tensor",
    "enable_eplb": "experts that have moved would get one another's weights when weights are published",
    "enable_elastic_ep": "the number of a worker's GPUs is fixed; set spec.workers.replicas, which may change",
    "elastic_ep_max_dp_size": "the number of a worker's GPUs is fixed; set spec.workers.replicas, which may change",
    "enable_dbo": _HALVES,
    "ubatch_size": _HALVES,
    "enable_fault_tolerance": "it belongs to data parallel ranks; openseer replaces a worker that fails",
    "fault_tolerance_config": "it belongs to data parallel ranks; openseer replaces a worker that fails",
    "enable_return_routed_experts": "set spec.routing.capture",
    "aux_output_config": _NOT_IN_RESULTS,
    "return_sampling_mask": _NOT_IN_RESULTS,
    **dict.fromkeys(("enable_lora", "max_lora_rank", "max_loras", "max_cpu_loras", "lora_target_modules"), _LORA),
    "skip_tokenizer_init": "without a tokenizer no response ends at the end-of-sequence token",
    "tokens_only": "without a tokenizer no response ends at the end-of-sequence token",
    "ec_transfer_config": _TEXT_ONLY,
    "mm_encoder_only": _TEXT_ONLY,
    "_api_process_count": _NO_API_SERVER,
    "_api_process_rank": _NO_API_SERVER,
}
"""Argument → reason, for arguments with which a worker would hang, get the wrong number of GPUs, compute wrong results
silently, or compute data that results do not contain."""

_ONE_BY_DEFAULT = frozenset({"data_parallel_size", "prefill_context_parallel_size"})


def is_default(name: str, value: object) -> bool:
    """Whether an argument of UNFIT_ENGINE_ARGS has vLLM's default value, so that it changes nothing.

    So existing jobs with such an argument continue to work; in new jobs the CRD refuses the name with any value.
    """
    return name in UNFIT_ENGINE_ARGS and (value is None or value is False or (name in _ONE_BY_DEFAULT and value == 1))
