"""Types of HTTP bodies, of JSON in Redis and of manifests keep their fields, defaults and limits."""

from openseer_core.manifest.job import API_VERSION, KIND, default_spec
from tests.contract.forms.models import ERRORS, MODELS, words
from tests.contract.forms.recorded import compare
from tests.contract.forms.schemas import bare_schema


def test_models_keep_their_input_schemas() -> None:
    compare("models_taken", {label: bare_schema(model, "validation") for label, model in MODELS.items()})


def test_models_keep_their_output_schemas() -> None:
    given = {label: bare_schema(model, "serialization") for label, model in MODELS.items()}
    same = [label for label, schema in given.items() if schema == bare_schema(MODELS[label], "validation")]
    compare("models_given", {label: "as taken" if label in same else schema for label, schema in given.items()})


def test_an_empty_manifest_keeps_its_defaults() -> None:
    compare("default_spec", {"apiVersion": API_VERSION, "kind": KIND, "spec": default_spec()})


def test_stored_and_sent_words_stay_the_same() -> None:
    compare("words", words())


def test_errors_keep_their_exit_codes_and_retry_flags() -> None:
    found = {label: {"exit_code": error.exit_code, "retryable": error.retryable} for label, error in ERRORS.items()}
    compare("errors", found)
