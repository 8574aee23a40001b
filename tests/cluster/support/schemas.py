"""Writes JSON schemas for kubeconform from an API server's OpenAPI document, without downloads.

The schemas are strict: they refuse fields that a kind does not define, which Kubernetes drops silently.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

Schema = dict[str, Any]

PATTERN = "{{.ResourceKind}}{{.KindSuffix}}.json"
"""File names, as a template of kubeconform's -schema-location."""
_REFERENCE = "#/definitions/"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_SCALARS: Mapping[str, Schema] = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["string", "number"]},
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["string", "integer"]},
}
"""Types that OpenAPI 2 declares as strings and whose values may also be numbers."""
_NAMES = {"type": "object", "additionalProperties": {"type": "string"}}
_RELABELING = {"sourceLabels": {"type": "array", "items": {"type": "string"}}, "targetLabel": {"type": "string"}}
_PORT = {
    "port": {"type": "string"},
    "path": {"type": "string"},
    "interval": {"type": "string"},
    "honorLabels": {"type": "boolean"},
    "relabelings": {"type": "array", "items": {"type": "object", "properties": _RELABELING}},
}
_EXPRESSION = {
    "key": {"type": "string"},
    "operator": {"enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
    "values": {"type": "array", "items": {"type": "string"}},
}
_SELECTOR = {
    "matchLabels": _NAMES,
    "matchExpressions": {"type": "array", "items": {"type": "object", "properties": _EXPRESSION}},
}
_PLACES = {"any": {"type": "boolean"}, "matchNames": {"type": "array", "items": {"type": "string"}}}


def _monitor(endpoints: str) -> Schema:
    return {
        "type": "object",
        "required": ["selector", endpoints],
        "properties": {
            "selector": {"type": "object", "properties": _SELECTOR},
            "namespaceSelector": {"type": "object", "properties": _PLACES},
            endpoints: {"type": "array", "minItems": 1, "items": {"type": "object", "properties": _PORT}},
        },
    }


_RULE = {name: {"type": "string"} for name in ("alert", "expr", "for")} | {"labels": _NAMES, "annotations": _NAMES}
_GROUP = {
    "name": {"type": "string"},
    "rules": {"type": "array", "items": {"type": "object", "required": ["alert", "expr"], "properties": _RULE}},
}
_MONITORING: Mapping[str, Schema] = {
    "ServiceMonitor": _monitor("endpoints"),
    "PodMonitor": _monitor("podMetricsEndpoints"),
    "PrometheusRule": {
        "type": "object",
        "required": ["groups"],
        "properties": {
            "groups": {"type": "array", "items": {"type": "object", "required": ["name"], "properties": _GROUP}}
        },
    },
}
"""The fields of the Prometheus operator's kinds that the chart uses. Their CRDs belong to another project, so the
server need not have them."""
_TRIGGER: Schema = {
    "type": "object",
    "required": ["type", "metadata"],
    "properties": {
        "type": {"type": "string"},
        "metadata": _NAMES,
        "authenticationRef": {"type": "object", "properties": {"name": {"type": "string"}}},
    },
}
_TARGET = {name: {"type": "string"} for name in ("apiVersion", "kind", "name")}
_COUNTS = ("minReplicaCount", "maxReplicaCount", "pollingInterval", "cooldownPeriod")
_TOKEN = {name: {"type": "string"} for name in ("parameter", "serviceAccountName")}
_KEDA: Mapping[str, Schema] = {
    "ScaledObject": {
        "type": "object",
        "required": ["scaleTargetRef", "triggers"],
        "properties": {
            "scaleTargetRef": {"type": "object", "required": ["name"], "properties": _TARGET},
            "triggers": {"type": "array", "items": _TRIGGER},
            **{name: {"type": "integer"} for name in _COUNTS},
        },
    },
    "TriggerAuthentication": {
        "type": "object",
        "properties": {
            "boundServiceAccountToken": {
                "type": "array",
                "items": {"type": "object", "required": list(_TOKEN), "properties": _TOKEN},
            }
        },
    },
}
"""The fields of KEDA's kinds that an example uses."""


def write_schemas(folder: Path, openapi: Mapping[str, Any], crds: list[Mapping[str, Any]]) -> None:
    """Writes one file for each kind: the server's own (`openapi`: its /openapi/v2), those of `crds`, three of the
    Prometheus operator and two of KEDA."""
    definitions: dict[str, Schema] = {name: _strict(definition) for name, definition in openapi["definitions"].items()}
    definitions |= _SCALARS
    for name, definition in openapi["definitions"].items():
        for kind in definition.get("x-kubernetes-group-version-kind", ()):
            _write(folder, kind["group"], kind["version"], kind["kind"], {"$ref": _REFERENCE + name}, definitions)
    for crd in crds:
        for version in crd["spec"]["versions"]:
            names, schema = crd["spec"], version["schema"]["openAPIV3Schema"]
            _write(folder, names["group"], version["name"], names["names"]["kind"], _whole(schema), definitions)
    for group, version, kinds in (("monitoring.coreos.com", "v1", _MONITORING), ("keda.sh", "v1alpha1", _KEDA)):
        for kind, spec in kinds.items():
            whole = _whole({"type": "object", "required": ["spec"], "properties": {"spec": spec}})
            _write(folder, group, version, kind, whole, definitions)


def _write(
    folder: Path, group: str, version: str, kind: str, schema: Schema, definitions: Mapping[str, Schema]
) -> None:
    needed: dict[str, Schema] = {}
    left = list(_references(schema))
    while left:
        name = left.pop()
        if name not in needed:
            needed[name] = definitions[name]
            left += _references(needed[name])
    words = filter(None, (kind, group.split(".")[0], version))
    (folder / f"{'-'.join(words).lower()}.json").write_text(json.dumps({**schema, "definitions": needed}))


def _whole(schema: Mapping[str, Any]) -> Schema:
    """A custom kind's schema with the fields of every object, which a CRD omits."""
    head = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"$ref": _REFERENCE + _META}}
    whole = _strict(schema)
    whole["properties"] |= head
    return whole


def _strict(schema: Mapping[str, Any]) -> Schema:
    """The same schema in plain JSON Schema; objects with named fields allow no other fields."""
    strict = {name: _part(name, value) for name, value in schema.items() if _speaks(name)}
    if schema.get("x-kubernetes-int-or-string"):
        strict["type"] = ["string", "integer"]
    if "properties" in strict and not schema.get("x-kubernetes-preserve-unknown-fields"):
        strict.setdefault("additionalProperties", False)
    return strict


def _speaks(word: str) -> bool:
    """Whether to keep a keyword. Formats are Kubernetes's own (int-or-string, byte); x-… is not JSON Schema."""
    return word not in ("format", "description", "default") and not word.startswith("x-")


def _part(name: str, value: Any) -> Any:
    if name == "properties":
        return {definition: _strict(schema) for definition, schema in value.items()}
    if name in ("items", "additionalProperties") and isinstance(value, dict):
        return _strict(cast("Schema", value))
    return value


def _references(schema: object) -> Iterator[str]:
    """Names of the definitions that a schema references. A property may be named $ref; its value is not a string."""
    if isinstance(schema, dict):
        for name, value in cast("dict[str, object]", schema).items():
            if name == "$ref" and isinstance(value, str):
                yield value.removeprefix(_REFERENCE)
            else:
                yield from _references(value)
    elif isinstance(schema, list):
        for value in cast("list[object]", schema):
            yield from _references(value)
