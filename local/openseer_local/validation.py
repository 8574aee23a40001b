"""The checks of `openseer validate`, which starts no store and no worker."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from openseer_core.admission import ModelLimits, check_stops
from openseer_core.errors import JsonError, ModelError
from openseer_core.manifest.generation import Model
from openseer_core.manifest.job import RolloutJob
from openseer_core.strict_json import parse
from openseer_core.tokens import count_items
from openseer_driver.run_folder import RunFolder
from openseer_driver.submission import read_groups
from openseer_local.model_limits import computed_limits
from openseer_local.run.runner import plan_run
from openseer_local.serve.plan import Address, ServingPlan
from openseer_local.terminal.display import Display
from openseer_text.rendering import TextCodec, open_codec

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_FROM_FILES = (None, "auto", "hf", "safetensors", "pt", "mistral")
"""Values of vLLM's load_format with which it reads files like _WEIGHTS in the model's folder."""
_UNREAD = ("tokenizer", "dtype", "engine_args")
"""Fields of spec.model that the scripted engine ignores."""


def checked(job: RolloutJob, document: dict[str, Any], display: Display, warn: Callable[[str], None]) -> dict[str, int]:
    """Checks a job. Returns the numbers of groups and requests and the longest prompt in tokens; {} in mode serve.

    `warn`: called with a note on settings that have no effect.
    Raises InputError and its subclasses, OutputError.
    """
    model = job.spec.model
    if ignored := [name for name in _UNREAD if model.engine == "scripted" and name in model.model_fields_set]:
        names = ", ".join(f"spec.model.{Model.model_fields[name].alias or name}" for name in ignored)
        warn(f"the scripted engine ignores {names}")
    if job.spec.mode == "serve":
        ServingPlan(job, document, RunFolder(f"runs/{job.name}"), Address("localhost", 0), fresh=True).check()
        _checked_codec(model, display, warn)
        check_stops(job.spec.sampling, _limits(job, display))
        return {}
    display.phase("reading prompts")
    plan = plan_run(job, document, RunFolder(job.output_path), fresh=True, note=display.detail)
    codec = _checked_codec(model, display, warn)
    limits = _limits(job, display)
    display.phase("rendering prompts")
    longest = 0
    for number, group in enumerate(read_groups(job, plan.prompts, codec, limits, 0.0), start=1):
        longest = max(longest, count_items(group.prompt))
        display.detail(f"{number:,} of {plan.prompts.count:,} prompts")
    count = plan.prompts.count
    return {"groups": count, "requests": count * job.spec.group_size, "longest_prompt_tokens": longest}


def _limits(job: RolloutJob, display: Display) -> ModelLimits:
    if job.spec.model.engine != "scripted":
        display.phase("asking vLLM for the model's limits")
    return computed_limits(job.spec.model, routes=job.spec.routing.capture is not None)


def _checked_codec(model: Model, display: Display, warn: Callable[[str], None]) -> TextCodec:
    """Loads the codec of a model and checks the model's files if they are on this machine."""
    if model.engine == "scripted":
        return open_codec(model, warn)
    place = model.tokenizer_path
    is_here = Path(place).is_dir()
    display.phase(
        "loading the tokenizer" if is_here else f"asking the hub for {place}, which is not a folder on this machine"
    )
    codec = open_codec(model, warn)
    _require_weights(model)
    return codec


def _require_weights(model: Model) -> None:
    """Raises ModelError if a model's folder on this machine has no weights, or lacks one of their files."""
    folder = Path(model.path)
    if not folder.is_dir() or model.engine_args.get("load_format") not in _FROM_FILES:
        return
    if not any(True for pattern in _WEIGHTS for _ in folder.glob(pattern)):
        raise ModelError(
            f"spec.model.path: found {model.path}, a folder without weights, allowed: one with {', '.join(_WEIGHTS)}"
        )
    for index in map(folder.joinpath, _INDEXES):
        if index.is_file() and (missing := [name for name in _listed(index) if not (folder / name).is_file()]):
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise ModelError(f"{index}: lists {missing[0]}{more}, which the folder does not have")


def _listed(index: Path) -> list[str]:
    """Names of the weight files in an index."""
    try:
        found = parse(index.read_bytes())
    except JsonError as error:
        raise ModelError(f"{index}: {error}") from None
    files = cast("dict[str, Any]", found).get("weight_map") if isinstance(found, dict) else None
    names = cast("dict[str, Any]", files).values() if isinstance(files, dict) else ()
    return sorted({name for name in names if isinstance(name, str)})
