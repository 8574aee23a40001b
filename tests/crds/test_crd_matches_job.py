"""crds/rolloutjobs.yaml and the typed job are one contract: same fields, kinds, defaults, limits and words."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from openseer_core.job import API_VERSION, KIND
from openseer_core.job_generation import OWNED_ENGINE_ARGS
from openseer_core.manifest_words import schema_at

Schema = Mapping[str, Any]

CRD = cast(
    "dict[str, Any]", yaml.safe_load((Path(__file__).parents[2] / "crds/rolloutjobs.yaml").read_text(encoding="utf-8"))
)
VERSION = CRD["spec"]["versions"][0]
OBJECT = VERSION["schema"]["openAPIV3Schema"]
# What both sides write alike.
SAME = (
    "description",
    "type",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "pattern",
    "required",
    "x-kubernetes-int-or-string",
)


def job_schema(*place: str | int) -> Schema:
    """The typed job's schema at this place, in the CRD's dialect."""
    schema = dict(schema_at(place))
    if "exclusiveMinimum" in schema:
        schema["minimum"] = schema.pop("exclusiveMinimum")
        schema["exclusiveMinimum"] = True
    return schema


def places(schema: Schema, place: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Schema]]:
    """Every field of a CRD schema; the values of a map stand under "*", the entries of a list under 0."""
    yield place, schema
    for name, inner in schema.get("properties", {}).items():
        yield from places(inner, (*place, name))
    if "additionalProperties" in schema:
        yield from places(schema["additionalProperties"], (*place, "*"))
    if "items" in schema:
        yield from places(schema["items"], (*place, 0))


SPEC = dict(places(OBJECT["properties"]["spec"], ("spec",)))


@pytest.mark.parametrize("place", SPEC, ids=lambda place: ".".join(map(str, place)))
def test_a_field_of_the_crd_is_the_field_of_the_job(place: tuple[str | int, ...]) -> None:
    crd, job = SPEC[place], job_schema(*place)
    assert {key: crd[key] for key in (*SAME, "exclusiveMinimum") if key in crd} == {
        key: job[key] for key in (*SAME, "exclusiveMinimum") if key in job
    }
    assert list(crd.get("properties", {})) == list(job.get("properties", {}))
    assert ("items" in crd) == ("items" in job)


@pytest.mark.parametrize("place", SPEC, ids=lambda place: ".".join(map(str, place)))
def test_a_default_of_the_crd_is_the_default_of_the_job(place: tuple[str | int, ...]) -> None:
    crd, job = SPEC[place], job_schema(*place)
    if job.get("default") is not None:
        assert crd["default"] == job["default"]
    elif "default" in job or place[-1] in job_schema(*place[:-1]).get("required", ()):
        assert "default" not in crd
    else:
        # A map that is not written down is there all the same when it holds defaults, as in the typed job.
        holds_defaults = any("default" in inner for below, inner in places(crd, place) if below != place)
        assert crd.get("default") == ({} if holds_defaults else None)


def test_free_form_maps_are_free_in_both() -> None:
    free = {place for place, schema in SPEC.items() if schema.get("x-kubernetes-preserve-unknown-fields")}
    assert free == {("spec", "model", "engineArgs"), ("spec", "workers", "template")}
    assert all("properties" not in job_schema(*place) for place in free)
    maps = {place for place, schema in SPEC.items() if "additionalProperties" in schema}
    resources = ("spec", "workers", "resources")
    assert maps == {(*resources, "limits"), (*resources, "requests")}


def test_the_crd_refuses_the_engine_arguments_that_openseer_owns() -> None:
    refused = SPEC[("spec", "model", "engineArgs")]["not"]["anyOf"]
    assert [entry["required"] for entry in refused] == [[name] for name in OWNED_ENGINE_ARGS]


def test_every_field_of_the_spec_and_the_status_has_a_description() -> None:
    status = dict(places(OBJECT["properties"]["status"], ("status",)))
    without = [place for place, schema in {**SPEC, **status}.items() if not schema.get("description")]
    # A value of a plain map, an entry of a plain list: the field that holds it describes it.
    assert [place for place in without if place[-1] not in ("*", 0)] == []


def test_names_are_limited_alike() -> None:
    crd, job = OBJECT["properties"]["metadata"]["properties"]["name"], job_schema("metadata", "name")
    assert (crd["maxLength"], crd["pattern"]) == (job["maxLength"], job["pattern"])


def test_group_version_and_kind_are_those_of_the_job() -> None:
    assert f"{CRD['spec']['group']}/{VERSION['name']}" == API_VERSION
    assert CRD["spec"]["names"]["kind"] == KIND
    assert CRD["metadata"]["name"] == f"{CRD['spec']['names']['plural']}.{CRD['spec']['group']}"


@pytest.mark.parametrize("field", ["mode", "model", "prompts", "groupSize", "sampling"])
def test_what_the_results_depend_on_is_fixed(field: str) -> None:
    rules = [entry["rule"] for entry in SPEC[("spec", field)]["x-kubernetes-validations"]]
    assert "self == oldSelf" in rules


def test_the_scale_subresource_points_at_fields_that_exist() -> None:
    for path in VERSION["subresources"]["scale"].values():
        schema: Any = OBJECT
        for name in path.removeprefix(".").split("."):
            schema = schema["properties"][name]
        assert schema["type"] in ("integer", "string")
