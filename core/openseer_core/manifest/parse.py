"""Makes a RolloutJob from a parsed document, with all errors at once, and compares manifests."""

import copy
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any, cast

from pydantic import ValidationError

from openseer_core.errors import ManifestError
from openseer_core.manifest.job import API_VERSION, KIND, RolloutJob, default_spec
from openseer_core.manifest.messages import problem_line
from openseer_core.manifest.rules import broken_rules
from openseer_core.wording import shown

MOST_NESTED = 64
"""Limit of nested maps and lists in a spec. Each level takes stack, and no pod template needs more levels."""

NOT_RESULTS = (
    "image",
    "imagePullPolicy",
    "imagePullSecrets",
    "model.volume",
    "model.cache",
    "model.hubTokenSecret",
    "model.offline",
    "rollout.quantumTokens",
    "rollout.leaseSeconds",
    "rollout.checkpointSeconds",
    "rollout.ageingTokensPerSecond",
    "speculation",
    "kvPool",
    "workers.replicas",
    "workers.min",
    "workers.max",
    "workers.autoscale",
    "workers.gracePeriodSeconds",
    "workers.maxInflight",
    "workers.tailRelease",
    "workers.maxUnavailable",
    "workers.resources",
    "workers.startSeconds",
    "workers.template",
    "driver",
    "store",
    "weights",
    "output",
    "suspend",
    "activeDeadlineSeconds",
    "ttlSecondsAfterFinished",
    "failurePolicy",
)
"""Fields of the spec that may change between two sessions of a run, because they do not change its results."""


def parse_job(document: object, source: str) -> RolloutJob:
    """The job that a document describes. `source`: the document's name, for messages.

    Raises ManifestError with all errors, one per line.
    """
    manifest = _mapping(document, source)
    foreign = list(_foreign(manifest))
    if foreign:
        raise ManifestError(source, foreign)
    if _is_nested_deeper(manifest.get("spec"), MOST_NESTED):
        raise ManifestError(source, [f"spec: maps and lists are nested deeper than the {MOST_NESTED} levels allowed"])
    problems: list[str] = []
    job: RolloutJob | None = None
    try:
        # Only code may use attribute names; in a manifest they would be a second spelling of each field.
        job = RolloutJob.model_validate(manifest, by_alias=True, by_name=False)
    except ValidationError as error:
        problems.extend(problem_line(entry) for entry in error.errors() if entry["type"] != "broken_rule")
    spec = manifest.get("spec")
    if isinstance(spec, Mapping):
        problems.extend(broken_rules(_overlaid(default_spec(), cast("Mapping[str, Any]", spec))))
    if problems or job is None:
        raise ManifestError(source, list(dict.fromkeys(problems)))
    return job


def parse_ended_job(document: object, source: str) -> RolloutJob:
    """The job of an ended run, without its engine arguments: this release may refuse them, and no engine starts.

    Raises ManifestError.
    """
    manifest = _mapping(document, source)
    spec = manifest.get("spec")
    model = cast("dict[str, Any]", spec).get("model") if isinstance(spec, dict) else None
    if isinstance(spec, dict) and isinstance(model, dict):
        model = {name: value for name, value in cast("dict[str, Any]", model).items() if name != "engineArgs"}
        manifest = {**manifest, "spec": {**cast("dict[str, Any]", spec), "model": model}}
    return parse_job(manifest, source)


def manifest_content(job: RolloutJob) -> dict[str, Any]:
    """The part of a manifest that determines a run's results, with defaults, as plain values to store with the run."""
    return _results_only({"spec": job.spec.model_dump(mode="json", by_alias=True, exclude_none=True)})


def _results_only(content: dict[str, Any]) -> dict[str, Any]:
    """`content` without the fields of NOT_RESULTS; changes it in place."""
    for path in NOT_RESULTS:
        *parents, name = path.split(".")
        part = content.get("spec", {})
        for parent in parents:
            part = part.get(parent, {})
        part.pop(name, None)
    return content


def settings_of(job: RolloutJob) -> dict[str, Any]:
    """The other part of a manifest, which may change between two sessions of a run; with defaults, by dotted name."""
    spec = job.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    found: dict[str, Any] = {}
    for path in NOT_RESULTS:
        *parents, name = path.split(".")
        part = spec
        for parent in parents:
            part = part[parent]
        if name in part:
            found[path] = part[name]
    return {"spec": found}


def manifest_hash(job: RolloutJob) -> str:
    """A hash of `manifest_content`: equal for manifests with the same results."""
    canonical = json.dumps(manifest_content(job), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def changed_fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Dotted names of the fields in which two results of `manifest_content` differ."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def changed_results(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """As `changed_fields`, of the content stored with a run and that of its manifest today.

    A release may add a field to NOT_RESULTS, so the stored content may have fields that no longer count.
    """
    return changed_fields(_results_only(copy.deepcopy(dict(stored))), now)


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, entry in value.items():
        if isinstance(entry, Mapping) and entry:
            yield from _leaves(cast("Mapping[str, Any]", entry), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", entry


def _mapping(document: object, source: str) -> dict[str, Any]:
    if not isinstance(document, dict):
        found = "nothing" if document is None else shown(document)
        raise ManifestError(source, [f"found {found}, allowed: a map with apiVersion, kind, metadata and spec"])
    return cast("dict[str, Any]", document)


def _is_nested_deeper(value: object, levels: int) -> bool:
    level = [value]
    for _ in range(levels):
        level = [inner for outer in level for inner in _entries(outer) if isinstance(inner, Mapping | list)]
        if not level:
            return False
    return True


def _entries(value: object) -> Collection[object]:
    if isinstance(value, Mapping):
        return cast("Mapping[object, object]", value).values()
    return cast("list[object]", value) if isinstance(value, list) else ()


def _foreign(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Errors about apiVersion and kind; if there are any, the document's other fields are not checked."""
    for name, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        found = manifest.get(name)
        if found is None:
            yield f"{name}: missing, allowed: {expected}"
        elif found != expected:
            yield f"{name}: found {shown(found)}, allowed: {expected}"


def _overlaid(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The given values over the defaults, map by map; a null keeps the default, as in Kubernetes."""
    result = dict(defaults)
    for name, value in given.items():
        default = defaults.get(name)
        if isinstance(default, Mapping) and isinstance(value, Mapping):
            result[name] = _overlaid(cast("Mapping[str, Any]", default), cast("Mapping[str, Any]", value))
        elif value is not None:
            result[name] = value
    return result
