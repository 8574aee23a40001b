"""Merges a user's pod template into the operator's, by the rules of `kubectl patch`.

Maps are merged by field; a null is ignored, because the API server drops it from a job. Containers of the same name are
merged. In other lists with a key (volumes, env, mounts, tolerations, …) an entry replaces the operator's entry with the
same key; an entry with a new key is added. Lists without a key (such as args) are replaced. Fields on which the
operator depends cannot be set.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from openseer_core.errors import InputError
from openseer_operator.objects.names import PREFIX

CONTAINER_LISTS = ("containers", "initContainers")
LIST_KEYS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "resourceClaims": ("name",),
    "schedulingGates": ("name",),
    "readinessGates": ("conditionType",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "ports": ("containerPort", "protocol"),
    "hostAliases": ("ip",),
    "tolerations": ("key", "effect"),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
"""By the list's name: the fields that identify an entry."""

_OPERATOR = "the operator sets it"
OWNED_POD_FIELDS = {
    "restartPolicy": "the operator counts failures and replaces pods itself",
    "hostname": _OPERATOR,
    "subdomain": _OPERATOR,
    "nodeName": "use nodeSelector or affinity; the scheduler places the pods",
}
OWNED_CONTAINER_FIELDS = {
    "command": _OPERATOR,
    "args": _OPERATOR,
    "ports": _OPERATOR,
    "startupProbe": _OPERATOR,
    "livenessProbe": _OPERATOR,
    "readinessProbe": _OPERATOR,
    "restartPolicy": OWNED_POD_FIELDS["restartPolicy"],
    "restartPolicyRules": OWNED_POD_FIELDS["restartPolicy"],
}
"""Fields of openseer's own container that a template cannot set, each with the reason."""


def overlay_template(
    ours: Mapping[str, Any],
    template: Mapping[str, Any],
    *,
    path: str,
    main: str,
    owned_pod_fields: Mapping[str, str] | None = None,
    owned_container_fields: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """`ours` (metadata and spec of a pod) merged with the user's `template`; neither is changed.

    `path`: the template's path in the manifest; `main`: name of openseer's container in the pod. `owned_pod_fields`,
    `owned_container_fields`: fields, with the reason, that a template cannot set, in addition to OWNED_POD_FIELDS and
    OWNED_CONTAINER_FIELDS. Raises InputError with the field that cannot be set, and the reason.
    """
    pod_fields = {**OWNED_POD_FIELDS, **(owned_pod_fields or {})}
    container_fields = {**OWNED_CONTAINER_FIELDS, **(owned_container_fields or {})}
    _refuse_others(template, ("metadata", "spec"), path)
    metadata = _map(template.get("metadata"), f"{path}.metadata")
    spec = _map(template.get("spec"), f"{path}.spec")
    _refuse_others(metadata, ("labels", "annotations"), f"{path}.metadata")
    for kind in ("labels", "annotations"):
        entries = _map(metadata.get(kind), f"{path}.metadata.{kind}")
        _refuse_reserved(entries, _map(ours["metadata"].get(kind), kind), f"{path}.metadata.{kind}")
    _refuse(spec, pod_fields, f"{path}.spec")
    for index, container in enumerate(_list(spec.get("containers"), f"{path}.spec.containers")):
        if container.get("name") == main:
            where = f"{path}.spec.containers[{index}]"
            _refuse(container, container_fields, where)
            _refuse_environment(container, where)
    return {
        **ours,
        "metadata": _merged(ours["metadata"], metadata, f"{path}.metadata"),
        "spec": _merged(ours["spec"], spec, f"{path}.spec"),
    }


def _merged(ours: Mapping[str, Any], theirs: Mapping[str, Any], path: str) -> dict[str, Any]:
    result = dict(ours)
    for name, value in theirs.items():
        where = f"{path}.{name}"
        if value is None:
            continue
        if name in LIST_KEYS:
            result[name] = _merged_list(name, ours.get(name, []), _list(value, where), where)
        elif isinstance(ours.get(name), dict):
            result[name] = _merged(ours[name], _map(value, where), where)
        else:
            result[name] = value
    return result


def _merged_list(
    name: str, ours: list[dict[str, Any]], theirs: list[Mapping[str, Any]], path: str
) -> list[dict[str, Any]]:
    keys = LIST_KEYS[name]
    result = {_key(entry, keys): entry for entry in ours}
    for index, entry in enumerate(theirs):
        where = f"{path}[{index}]"
        if name in CONTAINER_LISTS and not isinstance(entry.get("name"), str):
            raise InputError(f"{where}.name: missing; name the container")
        key = _key(entry, keys)
        if name in CONTAINER_LISTS and key in result:
            result[key] = _merged(result[key], entry, where)
        else:
            result[key] = dict(entry)
    return list(result.values())


def _key(entry: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    return repr([entry.get(key) for key in keys])


def _refuse_others(found: Mapping[str, Any], known: tuple[str, ...], path: str) -> None:
    for name in found:
        if name not in known:
            raise InputError(f"{path}.{name}: cannot be set here, allowed: {' and '.join(known)}")


def _refuse_reserved(entries: Mapping[str, Any], ours: Mapping[str, Any], path: str) -> None:
    for name in entries:
        if name in ours or name.startswith(PREFIX):
            raise InputError(f"{path}.{name}: cannot be set here; {_OPERATOR}")


def _refuse(found: Mapping[str, Any], owned: Mapping[str, str], path: str) -> None:
    for name, reason in owned.items():
        if name in found:
            raise InputError(f"{path}.{name}: cannot be set here; {reason}")


def _refuse_environment(container: Mapping[str, Any], path: str) -> None:
    for name in _names(_list(container.get("env"), f"{path}.env")):
        if name.startswith("OPENSEER_"):
            raise InputError(f"{path}.env: {name} cannot be set here; {_OPERATOR}")


def _names(entries: list[Mapping[str, Any]]) -> Iterator[str]:
    yield from (entry["name"] for entry in entries if isinstance(entry.get("name"), str))


def _map(value: object, path: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{path}: found {value!r}, allowed: a map")
    return cast("Mapping[str, Any]", value)


def _list(value: object, path: str) -> list[Mapping[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise InputError(f"{path}: found {value!r}, allowed: a list of maps")
    return [_map(entry, f"{path}[{index}]") for index, entry in enumerate(cast("list[object]", value))]
