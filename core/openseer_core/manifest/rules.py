"""Rules over several fields of a spec, each a small function over the names and values of the manifest.

Rules read plain values, not models, so that they also check a spec with other errors, and the user sees all errors at
once. A rule ignores values of a wrong type; the models report them.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from openseer_core.manifest.engine_args import OWNED_ENGINE_ARGS, UNFIT_ENGINE_ARGS, is_default
from openseer_core.manifest.fleet import BINDING_POLICIES
from openseer_core.manifest.generation import NO_LORA_MODULES, Scripted
from openseer_core.wording import one_line

Rule = Callable[[Mapping[str, Any]], Iterator[str]]
_POOL_ENGINE_ARGS = ("kv_transfer_config", "kv_offloading_size", "kv_offloading_backend", "prefix_match_unit")
_CONTEXT_PARALLEL = "decode_context_parallel_size"
_REFUSED_ENGINE_ARGS = OWNED_ENGINE_ARGS | UNFIT_ENGINE_ARGS


def _map(spec: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """The map at this place, without its nulls; empty if there is none."""
    value: Any = spec
    for name in names:
        value = cast("Mapping[str, Any]", value).get(name) if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping):
        return {}
    return {key: entry for key, entry in cast("Mapping[str, Any]", value).items() if entry is not None}


def _number(part: Mapping[str, Any], name: str) -> float | None:
    value = part.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _at_most(path: str, part: Mapping[str, Any], low: str, high: str) -> Iterator[str]:
    """Checks that one number of a map is at most another one."""
    small, large = _number(part, low), _number(part, high)
    if small is not None and large is not None and small > large:
        yield f"{path}.{low}: found {small}, allowed: at most {path}.{high} ({large})"


def _only_one(path: str, part: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[str]:
    found = [name for name in names if name in part]
    if len(found) > 1:
        yield f"{path}: found {' and '.join(found)}, allowed: only one of {', '.join(names)}"


def _exactly_one(path: str, part: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[str]:
    yield from _only_one(path, part, names)
    if not any(name in part for name in names):
        yield f"{path}: none given, allowed: exactly one of {', '.join(names)}"


def _prompts_fit_mode(spec: Mapping[str, Any]) -> Iterator[str]:
    given = spec.get("prompts") is not None
    if spec.get("mode") == "batch" and not given:
        yield "spec.prompts: missing; mode batch reads its prompts from path, pvc, configMap or url"
    if spec.get("mode") == "serve" and given:
        yield "spec.prompts: not used in mode serve, where a trainer submits its groups; remove it or set mode batch"


def _one_prompt_source(spec: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(spec.get("prompts"), Mapping):
        return
    yield from _exactly_one("spec.prompts", _map(spec, "prompts"), ("path", "pvc", "configMap", "url"))


def _one_prompt_column(spec: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(_map(spec, "prompts").get("fields"), Mapping):
        names = ("prompt", "messages", "promptTokenIds")
        yield from _exactly_one("spec.prompts.fields", _map(spec, "prompts", "fields"), names)


def _lengths_come_from_prompts(spec: Mapping[str, Any]) -> Iterator[str]:
    if spec.get("mode") != "serve":
        return
    if _map(spec, "rollout").get("policy") == "longest-first-oracle":
        yield "spec.rollout.policy: longest-first-oracle reads the lengths of prompt lines, which mode serve lacks"
    if _map(spec, "sampling").get("forceLengths") is True:
        yield "spec.sampling.forceLengths: reads the lengths of prompt lines, which mode serve lacks"


def _given_tokens_are_scored_once(spec: Mapping[str, Any]) -> Iterator[str]:
    size = _number(spec, "groupSize")
    if spec.get("mode") == "batch" and "scoreFrom" in _map(spec, "sampling") and size is not None and size > 1:
        yield f"spec.groupSize: found {size:g}, allowed with spec.sampling.scoreFrom: 1; all scores would be the same"


def _likeliest_have_a_score(spec: Mapping[str, Any]) -> Iterator[str]:
    sampling = _map(spec, "sampling")
    if sampling.get("logprobs") == "none" and sampling.get("topLogprobs"):
        yield "spec.sampling.topLogprobs: needs log-probabilities; set spec.sampling.logprobs to sampled or raw"


def _engine_args_are_free(spec: Mapping[str, Any]) -> Iterator[str]:
    given = _map(spec, "model", "engineArgs")
    for name in (key for key in given if isinstance(cast("object", key), str)):
        if is_default(name, given[name]):
            continue
        plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").lower()
        path = f"spec.model.engineArgs.{one_line(name)}"
        if plain in _REFUSED_ENGINE_ARGS:
            yield f"{path}: not allowed here; {_REFUSED_ENGINE_ARGS[plain]}"
        elif plain != name:
            yield f"{path}: engine arguments have vLLM's own snake_case names; write {one_line(plain)}"


def _trust_is_said(spec: Mapping[str, Any]) -> Iterator[str]:
    trust = _map(spec, "model", "engineArgs").get("trust_remote_code")
    if trust is not None and not isinstance(trust, bool):
        yield f"spec.model.engineArgs.trust_remote_code: found {trust!r:.40}, allowed: true or false"


def _adapters_leave_the_vocabulary(spec: Mapping[str, Any]) -> Iterator[str]:
    modules = _map(spec, "model", "lora").get("targetModules")
    for index, name in enumerate(cast("Sequence[object]", modules) if isinstance(modules, list | tuple) else ()):
        if isinstance(name, str) and name in NO_LORA_MODULES:
            yield f"spec.model.lora.targetModules[{index}]: found {name}, allowed: modules of layers; remove it"


def _experts_need_gpus(spec: Mapping[str, Any]) -> Iterator[str]:
    spread = _map(spec, "model", "engineArgs").get("enable_expert_parallel")
    if spread is not None and not isinstance(spread, bool):
        yield f"spec.model.engineArgs.enable_expert_parallel: found {spread!r:.40}, allowed: true or false"
    if spread is True and _number(_map(spec, "workers", "parallelism"), "tensor") == 1:
        yield (
            "spec.model.engineArgs.enable_expert_parallel: spreads experts over spec.workers.parallelism.tensor GPUs, "
            "found 1; set more, or remove it"
        )


def _min_tokens(spec: Mapping[str, Any]) -> Iterator[str]:
    yield from _at_most("spec.sampling", _map(spec, "sampling"), "minTokens", "maxTokens")


def _checkpoint_within_lease(spec: Mapping[str, Any]) -> Iterator[str]:
    rollout = _map(spec, "rollout")
    checkpoint, lease = _number(rollout, "checkpointSeconds"), _number(rollout, "leaseSeconds")
    if checkpoint is not None and lease is not None and checkpoint * 3 >= lease:
        yield (
            f"spec.rollout.checkpointSeconds: found {checkpoint}, "
            f"allowed: less than a third of spec.rollout.leaseSeconds ({lease})"
        )


def _pool_has_a_place(spec: Mapping[str, Any]) -> Iterator[str]:
    pool = _map(spec, "kvPool")
    if pool.get("template") and pool.get("backend") in ("none", "shared-directory"):
        yield f"spec.kvPool.template: backend {pool['backend']} has no pod; remove it, or set backend: mooncake"
    if pool.get("backend") == "shared-directory":
        yield from _exactly_one("spec.kvPool", pool, ("path", "pvc"))
        return
    backend = pool.get("backend")
    do = "remove it, or set backend: shared-directory"
    for name in ("path", "pvc") if backend in ("none", "mooncake") else ():
        if name in pool:
            yield f"spec.kvPool.{name}: not used with backend {backend}; {do}"


def _pool_fits_engine(spec: Mapping[str, Any]) -> Iterator[str]:
    if _map(spec, "kvPool").get("backend") in (None, "none"):
        return
    model = _map(spec, "model")
    if model.get("engine") == "scripted":
        yield "spec.kvPool.backend: the scripted engine has no KV cache to keep; set none, or model.scripted.pool"
    for name in _POOL_ENGINE_ARGS:
        if name in _map(model, "engineArgs"):
            yield f"spec.model.engineArgs.{name}: conflicts with spec.kvPool; remove one of them"
    yield from _one_engine_holds_a_sequence(spec, "spec.kvPool")


def _scripted_pool_makes_sense(spec: Mapping[str, Any]) -> Iterator[str]:
    scripted = _map(spec, "model", "scripted")
    pool = _map(scripted, "pool")
    if pool and spec.get("mode") == "serve":
        yield (
            "spec.model.scripted.pool: not used in mode serve, because it ignores weights versions and turns; remove it"
        )
    size, rate = _number(pool, "bytesPerToken"), _number(pool, "bytesPerSecond")
    default = {"prefillTokensPerSecond": Scripted().prefill_tokens_per_second}
    computed = _number({**default, **scripted}, "prefillTokensPerSecond")
    if size and rate is not None and computed is not None and rate <= size * computed:
        yield (
            f"spec.model.scripted.pool.bytesPerSecond: found {rate:g}, allowed: more than {size * computed:g}, "
            f"at which a context is fetched as fast as it is computed ({computed:g} tokens/s)"
        )


def _one_engine_holds_a_sequence(spec: Mapping[str, Any], feature: str) -> Iterator[str]:
    """Refuses settings that divide a sequence's layers or tokens among GPUs; `feature` does not support them."""
    stages = _number(_map(spec, "workers", "parallelism"), "pipeline")
    if stages is not None and stages > 1:
        yield f"spec.workers.parallelism.pipeline: found {stages:g}, allowed with {feature}: 1; use tensor"
    parts = _number(_map(spec, "model", "engineArgs"), _CONTEXT_PARALLEL)
    if parts is not None and parts > 1:
        yield f"spec.model.engineArgs.{_CONTEXT_PARALLEL}: found {parts:g}, allowed with {feature}: 1"


def _capture_has_one_place(spec: Mapping[str, Any]) -> Iterator[str]:
    yield from _only_one("spec.routing.capture", _map(spec, "routing", "capture"), ("path", "pvc"))


def _capture_fits_engine(spec: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(_map(spec, "routing").get("capture"), Mapping):
        return
    model, least = _map(spec, "model"), _number(_map(spec, "sampling"), "minP")
    if model.get("engine") == "scripted":
        yield "spec.routing.capture: the scripted engine has no experts; remove it"
    if least is not None and least > 0:
        yield f"spec.sampling.minP: found {least:g}, allowed with spec.routing.capture: 0"
    if _map(model, "engineArgs").get("logits_processors"):
        yield "spec.model.engineArgs.logits_processors: conflicts with spec.routing.capture; remove one of them"
    yield from _one_engine_holds_a_sequence(spec, "spec.routing.capture")


def _replicas_within_bounds(spec: Mapping[str, Any]) -> Iterator[str]:
    workers = _map(spec, "workers")
    yield from _at_most("spec.workers", workers, "min", "max")
    yield from _at_most("spec.workers", workers, "replicas", "max")
    yield from _at_most("spec.workers", workers, "min", "replicas")


def _one_model_volume(spec: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(_map(spec, "model").get("volume"), Mapping):
        yield from _exactly_one("spec.model.volume", _map(spec, "model", "volume"), ("pvc", "image"))


def _gang_divides_gpus(spec: Mapping[str, Any]) -> Iterator[str]:
    sizes = _map(spec, "workers", "parallelism")
    tensor, pipeline, nodes = (_number(sizes, name) for name in ("tensor", "pipeline", "nodes"))
    if tensor is not None and pipeline is not None and nodes and tensor * pipeline % nodes:
        yield (
            f"spec.workers.parallelism.nodes: found {nodes}, allowed: a divisor of tensor times pipeline "
            f"({tensor * pipeline}), so that each node has the same number of GPUs"
        )


def _bound_groups_need_workers(spec: Mapping[str, Any]) -> Iterator[str]:
    policy = _map(spec, "rollout").get("policy")
    if policy in BINDING_POLICIES and _number(_map(spec, "workers"), "replicas") == 0:
        yield f"spec.workers.replicas: found 0, allowed: at least 1 with policy {policy}, which binds groups to workers"


def _autoscaling_has_room(spec: Mapping[str, Any]) -> Iterator[str]:
    workers, policy = _map(spec, "workers"), _map(spec, "rollout").get("policy")
    if not isinstance(workers.get("autoscale"), Mapping):
        return
    if _number(workers, "max") is None:
        yield "spec.workers.max: missing; it is the upper limit of spec.workers.autoscale"
    if policy in BINDING_POLICIES:
        yield f"spec.workers.autoscale: conflicts with policy {policy}, which fixes the number of workers"


def _one_store(spec: Mapping[str, Any]) -> Iterator[str]:
    store = _map(spec, "store")
    yield from _only_one("spec.store", store, ("url", "secretRef"))
    for own in ("url", "secretRef"):
        if own in store and "persistence" in store:
            yield f"spec.store.persistence: belongs to the Redis that openseer runs; remove it or {own}"


def _suspend_keeps_store(spec: Mapping[str, Any]) -> Iterator[str]:
    if spec.get("suspend") is True and _map(spec, "store", "persistence").get("medium") == "ephemeral":
        yield "spec.suspend: found true, allowed: false with an ephemeral spec.store.persistence, which would be lost"


def _one_output(spec: Mapping[str, Any]) -> Iterator[str]:
    output = _map(spec, "output")
    yield from _only_one("spec.output", output, ("path", "pvc"))
    yield from _only_one("spec.output", output, ("pvc", "storageClass"))


def _one_cause_per_failure_rule(spec: Mapping[str, Any]) -> Iterator[str]:
    rules = _map(spec, "failurePolicy").get("rules")
    for index, rule in enumerate(cast("Sequence[object]", rules) if isinstance(rules, list | tuple) else ()):
        if isinstance(rule, Mapping):
            causes = _map({"rule": rule}, "rule")
            yield from _exactly_one(f"spec.failurePolicy.rules[{index}]", causes, ("onExitCodes", "onPodConditions"))


RULES: tuple[Rule, ...] = (
    _prompts_fit_mode,
    _one_prompt_source,
    _one_prompt_column,
    _lengths_come_from_prompts,
    _given_tokens_are_scored_once,
    _likeliest_have_a_score,
    _engine_args_are_free,
    _trust_is_said,
    _adapters_leave_the_vocabulary,
    _experts_need_gpus,
    _min_tokens,
    _checkpoint_within_lease,
    _pool_has_a_place,
    _pool_fits_engine,
    _scripted_pool_makes_sense,
    _capture_has_one_place,
    _capture_fits_engine,
    _replicas_within_bounds,
    _one_model_volume,
    _gang_divides_gpus,
    _bound_groups_need_workers,
    _autoscaling_has_room,
    _one_store,
    _suspend_keeps_store,
    _one_output,
    _one_cause_per_failure_rule,
)


def broken_rules(spec: Mapping[str, Any]) -> list[str]:
    """The errors of a spec that contains its defaults, one line each."""
    return [problem for rule in RULES for problem in rule(spec)]
