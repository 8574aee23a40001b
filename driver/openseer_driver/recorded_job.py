"""Reads the job of a run folder."""

import json
from typing import Any

from openseer_core.errors import InputError
from openseer_core.manifest.job import API_VERSION, KIND, RolloutJob
from openseer_core.manifest.parse import parse_ended_job
from openseer_driver.run_folder import RunFolder
from openseer_driver.run_lines import RunRecord


def recorded_job(folder: RunFolder, record: RunRecord) -> tuple[RolloutJob, bool]:
    """Returns the job of job.json, and True. A folder of results from a cluster may lack job.json; then returns the job
    of run.json, which has only the fields that determine results, and False. Raises InputError."""
    if folder.job_file.is_file():
        try:
            document: Any = json.loads(folder.job_file.read_bytes())
        except (OSError, ValueError) as error:
            raise InputError(f"{folder.job_file}: cannot be read: {error}") from error
        return parse_ended_job(document, str(folder.job_file)), True
    spec = record.manifest.get("spec")
    document = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": record.name}, "spec": spec}
    return parse_ended_job(document, str(folder.run_file)), False
