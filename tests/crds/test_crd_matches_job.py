"""crds/rolloutjobs.yaml and the typed job are one contract: same fields, kinds, defaults, limits and words."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

import pytest
import yaml

from openseer_core.manifest.engine_args import OWNED_ENGINE_ARGS, UNFIT_ENGINE_ARGS
from openseer_core.manifest.job import API_VERSION, KIND
from openseer_core.manifest.messages import schema_at
from openseer_core.manifest.parse import NOT_RESULTS
from tests.repository import ROOT

Schema = Mapping[str, Any]

CRD = cast("dict[str, Any]", yaml.safe_load((ROOT / "crds/rolloutjobs.yaml").read_text(encoding="utf-8")))
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
    elif place[-1] != 0:
        # A map that is not written down is there all the same when it holds defaults, as in the typed job.
        holds_defaults = any("default" in inner for below, inner in places(crd, place) if below != place)
        assert crd.get("default") == ({} if holds_defaults else None)


def test_free_form_maps_are_free_in_both() -> None:
    free = {place for place, schema in SPEC.items() if schema.get("x-kubernetes-preserve-unknown-fields")}
    templates = {("spec", part, "template") for part in ("workers", "driver", "store", "kvPool")}
    assert free == {("spec", "model", "engineArgs"), *templates}
    assert all("properties" not in job_schema(*place) for place in free)
    maps = {place for place, schema in SPEC.items() if "additionalProperties" in schema}
    kinds = ("limits", "requests")
    assert maps == {("spec", part, "resources", kind) for part in ("workers", "driver", "store") for kind in kinds}


def test_the_crd_refuses_the_engine_arguments_that_a_job_may_not_give() -> None:
    refused = SPEC[("spec", "model", "engineArgs")]["not"]["anyOf"]
    assert [entry["required"] for entry in refused] == [[name] for name in (*OWNED_ENGINE_ARGS, *UNFIT_ENGINE_ARGS)]


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


def is_fixed(place: tuple[str | int, ...]) -> bool:
    """True when the field, or a map that it lies in, can never change."""
    rules = SPEC.get(place, {}).get("x-kubernetes-validations", ())
    return any(entry["rule"] == "self == oldSelf" for entry in rules) or (len(place) > 1 and is_fixed(place[:-1]))


def is_compared(place: tuple[str | int, ...]) -> bool:
    """Whether a restarted driver compares this field with that of its run: a difference would end the job."""
    dotted = ".".join(map(str, place[1:]))
    return not any(dotted == field or dotted.startswith(f"{field}.") for field in NOT_RESULTS)


def test_a_field_is_fixed_or_does_not_change_the_results() -> None:
    leaves = [
        place
        for place in SPEC
        if place[0] == "spec" and not any(len(other) > len(place) and other[: len(place)] == place for other in SPEC)
    ]
    assert ("spec", "workers", "startSeconds") in leaves
    assert ("spec", "groupSize") in [place for place in leaves if is_compared(place)]
    assert [place for place in leaves if is_compared(place) and not is_fixed(place)] == []


def test_where_results_lie_is_fixed() -> None:
    assert is_fixed(("spec", "output"))


def test_of_the_store_only_what_it_is_stays_fixed() -> None:
    fixed = " ".join(
        entry["rule"] for entry in SPEC["spec", "store"]["x-kubernetes-validations"] if "oldSelf" in entry["rule"]
    )
    fields = {".".join(map(str, place[2:])) for place in SPEC if place[:2] == ("spec", "store") and len(place) > 2}
    assert {field for field in fields if f"oldSelf.{field}" in fixed} == {
        *("url", "secretRef", "persistence", "persistence.medium", "persistence.storageClass")
    }
    assert not any(
        "self.persistence == oldSelf" in entry["rule"] for entry in SPEC["spec", "store"]["x-kubernetes-validations"]
    )


@pytest.mark.parametrize("column", VERSION["additionalPrinterColumns"], ids=lambda column: column["name"])
def test_a_printed_column_shows_a_field_of_its_type(column: Mapping[str, str]) -> None:
    schema: Any = OBJECT
    for name in column["jsonPath"].removeprefix(".").split("."):
        # Of the metadata, a CRD states only limits.
        schema = schema["properties"].get(name, {"type": "date"})
    assert schema["type"] == column["type"]


def test_the_scale_subresource_points_at_fields_that_exist() -> None:
    for path in VERSION["subresources"]["scale"].values():
        schema: Any = OBJECT
        for name in path.removeprefix(".").split("."):
            schema = schema["properties"][name]
        assert schema["type"] in ("integer", "string")
