"""An admin's settings for the objects of all jobs: metadata, security, environment, certificates, probes.

The names are those of the chart's value `jobs`. Three come from other values: `caBundle`, `logFormat` (from `logs`) and
`driverEnv` (the variables from `traces`).
"""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from openseer_core.errors import InputError
from openseer_core.manifest.base import ManifestModel, Positive

USER_ID = 65532
"""Default user and group id of every process; the images are built for it."""
OWN_VARIABLES = "OPENSEER_"
"""Prefix of openseer's own environment variables."""

NamePatterns = Annotated[tuple[str, ...], Field(strict=False)]


class Probes(ManifestModel):
    """Periods, timeout (in seconds) and threshold of the probes of workers and drivers."""

    timeout_seconds: Positive = 2
    readiness_period_seconds: Positive = 2
    liveness_period_seconds: Positive = 10
    liveness_failures: Positive = 6


class CaBundle(ManifestModel):
    """A ConfigMap with certificates. It has the same name in every namespace of jobs; "" for none."""

    config_map: str = ""
    key: str = "ca-bundle.crt"


class JobPodSettings(ManifestModel):
    """An admin's settings of the objects of all jobs.

    `inherit_labels`, `inherit_annotations`: names of a job's labels and annotations that its objects inherit; a "*" at
    the end matches any rest. `pod_security_context`: the securityContext of every pod. `env`: additional environment
    variables of workers and drivers, as entries of a container's `env`; `driver_env`: additional ones of drivers only.
    `log_format`: format of the logs of all processes. `start_seconds`: default timeout of a worker's start, in seconds.
    `probes`: of workers and drivers. `ca_bundle`: certificates for all of them.
    """

    inherit_labels: NamePatterns = ()
    inherit_annotations: NamePatterns = ()
    pod_security_context: dict[str, Any] = Field(
        default_factory=lambda: {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        }
    )
    env: Annotated[tuple[dict[str, Any], ...], Field(strict=False)] = ()
    driver_env: Annotated[tuple[dict[str, Any], ...], Field(strict=False)] = ()
    log_format: Literal["text", "json"] = "text"
    start_seconds: Positive = 3600
    probes: Probes = Field(default_factory=Probes)
    ca_bundle: CaBundle = Field(default_factory=CaBundle)


def read_pod_settings(variable: str, text: str) -> JobPodSettings:
    """Parses the settings from JSON. `variable`: the environment variable that contains `text`; "" gives the defaults.
    Raises InputError with the variable's name and the problem."""
    try:
        settings = JobPodSettings.model_validate_json(text or "{}")
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{variable}: {place or 'the whole value'}: {first['msg']}") from None
    for field, entries in (("env", settings.env), ("driverEnv", settings.driver_env)):
        for index, entry in enumerate(entries):
            name = entry.get("name")
            if not isinstance(name, str) or name.startswith(OWN_VARIABLES):
                raise InputError(f"{variable}: {field}[{index}].name: found {name!r}, allowed: not {OWN_VARIABLES}…")
    return settings
