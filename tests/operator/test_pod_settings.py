"""An administrator's settings for jobs' objects, read from the operator's environment."""

import json
from typing import Any

import pytest

from openseer_core.errors import InputError
from openseer_operator.pod_settings import JobPodSettings
from openseer_operator.settings import OperatorSettings
from tests.operator.stores import KEYS

ENVIRONMENT = {
    "OPENSEER_NAMESPACE": "n",
    "OPENSEER_WORKER_IMAGE": "w",
    "OPENSEER_STORE_IMAGE": "s",
    "OPENSEER_STORE_KEYS": str(KEYS),
}


def read(jobs: Any) -> JobPodSettings:
    return OperatorSettings.read(
        {**ENVIRONMENT, "OPENSEER_JOBS": jobs if isinstance(jobs, str) else json.dumps(jobs)}
    ).pods


def test_an_empty_environment_gives_the_defaults() -> None:
    assert read("") == OperatorSettings.read(ENVIRONMENT).pods == JobPodSettings()


def test_a_given_part_leaves_the_other_defaults() -> None:
    found = read({"probes": {"livenessFailures": 9}, "inheritLabels": ["team"]})
    assert (found.probes.liveness_failures, found.probes.timeout_seconds) == (9, 2)
    assert (found.inherit_labels, found.start_seconds) == (("team",), 3600)


@pytest.mark.parametrize(
    ("jobs", "words"),
    [
        ("{", "OPENSEER_JOBS: the whole value: Invalid JSON"),
        ({"probe": {}}, "OPENSEER_JOBS: probe: Extra inputs"),
        ({"startSeconds": 0}, "OPENSEER_JOBS: startSeconds: Input should be greater than"),
        ({"probes": {"timeoutSeconds": "2"}}, "OPENSEER_JOBS: probes.timeoutSeconds: Input should be a valid integer"),
        ({"env": [{"value": "x"}]}, "OPENSEER_JOBS: env[0].name: found None, allowed: not OPENSEER_"),
        ({"driverEnv": [{"name": "OPENSEER_LOG"}]}, "driverEnv[0].name: found 'OPENSEER_LOG', allowed: not OPENSEER_"),
        ({"logFormat": "xml"}, "OPENSEER_JOBS: logFormat: Input should be 'text' or 'json'"),
        ({"env": [{"name": "OPENSEER_STORE_URL"}]}, "env[0].name: found 'OPENSEER_STORE_URL', allowed: not OPENSEER_"),
    ],
)
def test_a_wrong_value_is_named(jobs: Any, words: str) -> None:
    with pytest.raises(InputError) as caught:
        read(jobs)
    assert words in str(caught.value)
