"""Reads a process's job file: the manifest as JSON, written by the operator or the runner."""

import json
import os
from pathlib import Path
from typing import Any

from openseer_core.errors import ManifestError
from openseer_core.manifest.home import at_home
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_core.wording import unreadable

HOW = (
    "--job takes the manifest as JSON: `openseer run` and `serve` write it to job.json in the run's folder, and "
    "`kubectl create --dry-run=client -o json -f FILE` converts a manifest in YAML"
)


def read_job_file(path: Path) -> tuple[dict[str, Any], RolloutJob]:
    """The manifest as a document and as a job, with $HOME in place of ~ in its paths. Raises ManifestError if the file
    cannot be read, is not JSON, or has no valid job."""
    source = str(path)
    try:
        document: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise ManifestError(source, [unreadable(error, Path.cwd)]) from error
    except ValueError as error:
        raise ManifestError(source, [f"not JSON: {error}; {HOW}"]) from error
    document = at_home(document, os.environ.get("HOME"))
    return document, parse_job(document, source)
