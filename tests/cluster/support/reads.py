"""Reads a cluster's objects through one `kubectl proxy` on a Unix socket. Concurrent tests read four times a second,
and a kubectl process for each read would take a seventh of a second of CPU time."""

import contextlib
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import httpx

READ_SECONDS = 30.0
"""Timeout of one read, in seconds; after it the caller uses kubectl, whose message says what is wrong."""
END_SECONDS = 60.0

_CORE = "/api/v1"
_PLACES = {
    "event": _CORE,
    "node": _CORE,
    "persistentvolumeclaim": _CORE,
    "pod": _CORE,
    "lease": "/apis/coordination.k8s.io/v1",
    "rolloutjob": "/apis/openseer.dev/v1alpha1",
}
"""API paths of the kinds that are read often; other kinds are read with kubectl."""
_OF_THE_CLUSTER = ("node",)


class Reads:
    """Reads objects in the form of `kubectl get -o json` until `close`; thread-safe. `kubectl`: its command line."""

    def __init__(self, kubectl: list[str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="openseer-reads-")
        socket = str(Path(self._folder.name) / "socket")
        self._process = subprocess.Popen(
            [*kubectl, "proxy", f"--unix-socket={socket}"], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()  # it listens, or it has ended
        transport = httpx.HTTPTransport(uds=socket)
        self._http = httpx.Client(transport=transport, base_url="http://localhost", timeout=READ_SECONDS)
        self._http.get("/version").raise_for_status()

    def read(self, kind: str, name: str, namespace: str | None, selector: str = "") -> dict[str, Any] | None:
        """One object, or the list of them if `name` is empty; namespace "": of all namespaces. None if the read failed
        or the kind has no path here; then the caller uses kubectl."""
        kind = kind.removesuffix("s")
        if kind not in _PLACES:
            return None
        within = "" if namespace == "" or kind in _OF_THE_CLUSTER else f"/namespaces/{namespace or 'default'}"
        path = f"{_PLACES[kind]}{within}/{kind}s" + (f"/{name}" if name else "")
        try:
            answer = self._http.get(path, params={"labelSelector": selector} if selector else {})
        except httpx.HTTPError:
            return None
        return dict(answer.json()) if answer.is_success else None

    def close(self) -> None:
        """Ends the proxy, which may have ended together with its cluster."""
        self._http.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        self._process.communicate(timeout=END_SECONDS)
        self._folder.cleanup()
