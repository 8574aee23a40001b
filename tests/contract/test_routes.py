"""HTTP routes, their parameters and answers, and the metrics of the API stay as they are."""

from typing import Any

from fastapi.routing import APIRoute
from prometheus_client.parser import text_string_to_metric_families

from openseer_api.app import create_app
from openseer_api.http.auth import BearerAuth
from openseer_api.job.context import JobContext, OneJob
from openseer_api.job.metrics import exposition
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_store.memory import MemoryStore
from tests.api.served import TOKEN, serving_job
from tests.contract.forms.filled import ONGOING
from tests.contract.forms.recorded import compare
from tests.contract.forms.schemas import bare


def app(*, many: bool = False) -> Any:
    return create_app(OneJob(JobContext(serving_job(), MemoryStore())), BearerAuth(TOKEN), many=many)


def routes(*, many: bool) -> list[str]:
    """All routes, including the compatible routes, which are not in the document."""
    found = [route for route in app(many=many).routes if isinstance(route, APIRoute)]
    return sorted(f"{method} {route.path}" for route in found for method in route.methods)


def test_the_openapi_document_stays_the_same() -> None:
    document = app().openapi()
    parts = {f"#/components/schemas/{name}": part for name, part in document["components"]["schemas"].items()}
    every: dict[str, Any] = {}
    for path, methods in document["paths"].items():
        every[path] = {method: operation(call, parts) for method, call in methods.items()}
    compare("openapi", {"paths": every, "security": document["components"].get("securitySchemes")})


def operation(call: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    """One call: parameters, body and answers. Of a model only the field names are listed."""
    body = call.get("requestBody", {})
    parameters = [bare(part, parts) for part in call.get("parameters", [])]
    return {
        "parameters": sorted(parameters, key=lambda part: (part["in"], part["name"])),
        "body": {"required": body.get("required"), "content": contents(body, parts)},
        "answers": {status: contents(answer, parts) for status, answer in call["responses"].items()},
    }


def contents(told: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    """The contents of a body or an answer, by media type."""
    found: dict[str, Any] = {}
    for kind, what in told.get("content", {}).items():
        schema = what.get("schema", {})
        own = {f"#/components/schemas/{name}": part for name, part in schema.get("$defs", {}).items()}
        plain = bare(schema, parts | own)
        found[kind] = sorted(plain["properties"]) if "properties" in plain else plain
    return found


def test_routes_keep_their_methods_and_paths() -> None:
    compare("routes", {"one job": routes(many=False), "many jobs": routes(many=True)})


async def test_the_metrics_of_the_api_keep_their_names_and_labels() -> None:
    store = MemoryStore()
    assert await store.swap_fleet_spec(FleetSpec(revision=1, transaction=ONGOING))
    job = JobContext(serving_job(), store)
    job.calls[200] += 1
    text = (await exposition(job)).decode()
    found = {
        f"{family.type} {sample.name}": sorted(sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    compare("metrics_api", found)
