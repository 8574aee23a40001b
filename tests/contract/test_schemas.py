"""Types of HTTP bodies, of JSON in Redis and of manifests keep their fields, defaults and limits."""

from openseer_core.manifest.job import API_VERSION, KIND, default_spec
from tests.contract.forms.models import ERRORS, MODELS, words
from tests.contract.forms.recorded import compare
from tests.contract.forms.schemas import bare_schema


def test_models_take_what_they_took() -> None:
    compare("models_taken", {label: bare_schema(model, "validation") for label, model in MODELS.items()})


def test_models_give_what_they_gave() -> None:
    given = {label: bare_schema(model, "serialization") for label, model in MODELS.items()}
    same = [label for label, schema in given.items() if schema == bare_schema(MODELS[label], "validation")]
    compare("models_given", {label: "as taken" if label in same else schema for label, schema in given.items()})


def test_a_manifest_that_says_nothing_means_what_it_meant() -> None:
    compare("default_spec", {"apiVersion": API_VERSION, "kind": KIND, "spec": default_spec()})


def test_words_that_are_stored_or_told_are_the_same() -> None:
    compare("words", words())


def test_errors_have_their_exit_codes_and_say_whether_to_retry() -> None:
    found = {label: {"exit_code": error.exit_code, "retryable": error.retryable} for label, error in ERRORS.items()}
    compare("errors", found)
