"""A folder of weights, local and over HTTP."""

import http.server
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from openseer_worker.weights.files import INDEX
from tests.worker.weights.made import safetensors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Weights in two files."""
    path = tmp_path / "weights"
    path.mkdir()
    for name in ("a.safetensors", "b.safetensors"):
        safetensors(path / name)
    (path / INDEX).write_text(json.dumps({"weight_map": {"w": "a.safetensors", "v": "b.safetensors"}}))
    return path


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        del format, args


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    """URL of the folder over HTTP."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()
