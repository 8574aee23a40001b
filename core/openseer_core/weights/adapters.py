"""Checks of LoRA adapters: whether the fleet can serve one more, and whether engines compute it as it was trained."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from openseer_core.manifest.generation import Lora
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.weights.publish import Publish

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
"""The files of an adapter as PEFT saves it."""
_DTYPES = ("F32", "F16", "BF16")
_TENSOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])\.weight")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
_OTHER_BASE = "it changes the base weights; save the adapter with PEFT's path_initial_model_for_weight_conversion"
_MERGE = "engines do not compute it; merge the adapter, and publish whole weights"
_REFUSED: dict[str, tuple[tuple[object, ...], str]] = {
    "peft_type": (("LORA",), "only LoRA adapters are served"),
    "bias": (("none",), _MERGE),
    "modules_to_save": ((None, []), _MERGE),
    "use_dora": ((None, False), _MERGE),
    "lora_bias": ((None, False), _MERGE),
    "fan_in_fan_out": ((None, False), _MERGE),
    "alora_invocation_tokens": ((None, []), _MERGE),
    "layer_replication": ((None, []), _MERGE),
    "trainable_token_indices": ((None, [], {}), _MERGE),
    "target_parameters": ((None, []), _MERGE),
    "use_bdlora": ((None, False, {}), _MERGE),
    "use_qalora": ((None, False), _MERGE),
}
"""Field of an adapter's configuration → accepted values, and the reason why other values are refused."""
_READ = frozenset(
    {"r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "init_lora_weights", "base_model_name_or_path"}
)
_WITHOUT_EFFECT = frozenset(
    {
        "auto_mapping",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "exclude_modules",
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_dropout",
        "lora_dtype",
        "lora_ga_config",
        "lorap_emb_lr",
        "lorap_lr_ratio",
        "megatron_config",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
        "velora_config",
    }
)
"""Fields that do not change the results of a trained adapter. They describe its training, its initial values, or its
modules, which the tensors' names also contain."""
_OFF: tuple[object, ...] = (None, False, 0, "", [], {})
"""Values with which an unknown field is accepted, because they turn a feature off."""


class Tensor(NamedTuple):
    """Number format and shape of a tensor, from the header of a safetensors file; `dtype`: the name used there."""

    dtype: str
    shape: tuple[int, ...]


def no_place(fleet_spec: FleetSpec, publish: Publish, participants: Sequence[str], lora: Lora | None) -> str:
    """The reason why an adapter cannot be published now; "" if it can, or if the publish is of whole weights.

    `participants`: of the transaction; `lora`: the job's limits, None if the job serves no adapters.
    """
    adapter = publish.adapter
    if adapter is None:
        return ""
    if lora is None:
        return "adapter: this job serves none; set spec.model.lora in its manifest"
    if adapter.base not in (None, fleet_spec.version):
        return (
            f"adapter.base: found {adapter.base}, the fleet has {fleet_spec.version}; adapters work on the weights "
            "that they were trained on: publish those before, or train on the present ones"
        )
    if fleet_spec.adapter(adapter.name) is None and len(fleet_spec.adapters) >= lora.max_adapters:
        names = ", ".join(other.name for other in fleet_spec.adapters)
        return (
            f"adapter.name: found a new one, {adapter.name}, and {names} are served already, allowed: "
            f"{lora.max_adapters} (spec.model.lora.maxAdapters); remove one, or replace one by its name"
        )
    if not participants and publish.source.digest is None:
        return "source.digest: missing; the fleet has no worker that could compute it from the adapter's files"
    return ""


def wrong_adapter(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    lora: Lora,
    model: str,
    own: Mapping[str, Tensor] | None,
) -> str:
    """The first error in an adapter's configuration and tensors, with field and value; "" if there is none.

    `model`: the job's model, a path or a hub id. `own`: the model's tensors by name; None if they are unknown, for
    example for a hub id.
    """
    return next(_wrong_config(config, model if own is None else ""), "") or next(
        _wrong_tensors(tensors, lora, own, _ranks(config)), ""
    )


def _wrong_config(config: Mapping[str, Any], model: str) -> Iterator[str]:
    for name, (served, why) in _REFUSED.items():
        if config.get(name, served[0]) not in served:
            yield f"{name}: found {_shown(config[name])}, allowed: {_shown(served[-1])}; {why}"
    base = config.get("base_model_name_or_path")
    if isinstance(base, str) and _HUB_ID.fullmatch(base) and _HUB_ID.fullmatch(model) and base != model:
        yield f"base_model_name_or_path: found {_shown(base)}, needed: the job's model, {model}"
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() not in _PLAIN_INITS:
        yield f"init_lora_weights: found {_shown(init)}, allowed: true, false, {', '.join(_PLAIN_INITS)}; {_OTHER_BASE}"
    for name in sorted(config.keys() - _REFUSED.keys() - _READ - _WITHOUT_EFFECT):
        if config[name] not in _OFF:
            yield (
                f"{name}: found {_shown(config[name])}; this release does not support it: remove it if it changes no "
                f"result; otherwise {_MERGE}"
            )
    yield from _wrong_numbers(config)


def _wrong_numbers(config: Mapping[str, Any]) -> Iterator[str]:
    for name in ("r", "lora_alpha"):
        if not _is_number(config.get(name)):
            yield f"{name}: found {_shown(config.get(name))}, allowed: a number above 0"
    for name in ("rank_pattern", "alpha_pattern"):
        pattern: Any = config.get(name) or {}
        if not isinstance(pattern, Mapping) or not all(map(_is_number, cast("Mapping[str, Any]", pattern).values())):
            yield f"{name}: found {_shown(config[name])}, allowed: a map of names to numbers above 0"
            continue
        for key in cast("Mapping[str, Any]", pattern):
            try:
                _matcher(key)
            except (re.error, OverflowError, RecursionError):
                yield f"{name}: found key {_shown(key)}, needed: a regular expression, or a module's name"


def _matcher(key: str) -> re.Pattern[str]:
    """The pattern of the module names that a key denotes, as in PEFT and vLLM: the whole name, or its last parts."""
    return re.compile(rf"(.*\.)?({key})$")


def _ranks(config: Mapping[str, Any]) -> Callable[[str], float]:
    """A function: module name → rank by the configuration. Engines scale the module's update by that rank."""
    ranks: Mapping[str, float] = config.get("rank_pattern") or {}
    patterns = [(_matcher(key), rank) for key, rank in ranks.items()]

    def rank_of(module: str) -> float:
        return next((rank for pattern, rank in patterns if pattern.match(module)), config["r"])

    return rank_of


def _wrong_tensors(
    tensors: Mapping[str, Tensor], lora: Lora, own: Mapping[str, Tensor] | None, rank_of: Callable[[str], float]
) -> Iterator[str]:
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        found = _TENSOR.fullmatch(name)
        if found is None:
            yield (
                f"tensor {name}: allowed: base_model.model.MODULE.lora_A.weight and lora_B.weight; train without its "
                "module (target_modules), or merge the adapter, and publish whole weights"
            )
            continue
        if tensor.dtype not in _DTYPES or len(tensor.shape) != 2:
            found_text = f"{tensor.dtype} {list(tensor.shape)}"
            yield f"tensor {name}: found {found_text}, allowed: two dimensions of {_list(_DTYPES)}"
        halves.setdefault(found["module"], {})[found["half"]] = tensor
    if not halves:
        yield f"{TENSORS}: it has no tensors"
    for module, pair in halves.items():
        yield from _wrong_module(module, pair, lora, own, rank_of(module))


def _wrong_module(
    module: str, pair: Mapping[str, Tensor], lora: Lora, own: Mapping[str, Tensor] | None, needed: float
) -> Iterator[str]:
    last = module.rpartition(".")[2]
    if last not in lora.target_modules:
        yield (
            f"module {module}: found {last}, allowed: {_list(lora.target_modules)} (spec.model.lora.targetModules); "
            "train without it, or add it there"
        )
    if len(pair) != 2:
        yield f"module {module}: found lora_{next(iter(pair))} alone, needed: lora_A and lora_B"
        return
    down, up = pair["A"].shape, pair["B"].shape
    rank = down[0]
    if rank != up[1]:
        yield f"module {module}: lora_A has shape {list(down)} and lora_B {list(up)}, of different ranks"
    if rank > lora.max_rank:
        yield f"module {module}: found rank {rank}, allowed: at most {lora.max_rank} (spec.model.lora.maxRank)"
    if rank != needed:
        yield f"module {module}: found rank {rank}, needed: {needed:g}, by {CONFIG} (r, rank_pattern)"
    if own is not None:
        yield from _wrong_shape(module, (up[0], down[1]), own)


def _wrong_shape(module: str, found: tuple[int, int], own: Mapping[str, Tensor]) -> Iterator[str]:
    base = own.get(f"{module}.weight")
    if base is None:
        yield f"module {module}: the job's model has no such module; the adapter is of another model"
    elif base.shape != found:
        yield (
            f"module {module}: its update has shape {list(found)}, the job's model {list(base.shape)}; "
            "the adapter is of another model"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _list(values: Sequence[str]) -> str:
    return ", ".join(values)


def _shown(value: object) -> str:
    return f"{value!r:.60}"
