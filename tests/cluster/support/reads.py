"""Reads of a cluster's objects without a process for each: tests look four times a second, side by side, and a kubectl
takes a seventh of a second of a processor. One `kubectl proxy` on a Unix socket reaches the API server for all."""

import contextlib
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import httpx

READ_SECONDS = 30.0
"""Of one read; an API server that is silent so long is asked by kubectl, which says what is wrong."""
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
"""Kinds that are read often, and where the API has them; kubectl knows the others."""
_OF_THE_CLUSTER = ("node",)


class Reads:
    """Objects as `kubectl get` gives them, for threads side by side, until `close`. `kubectl`: how it is called."""

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
        """One object, or with no name the list of them; namespace "": of all namespaces. None where only kubectl can
        say what there is, or why there is nothing."""
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
        """Ends the proxy, also one that a cluster's end has taken along."""
        self._http.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        self._process.communicate(timeout=END_SECONDS)
        self._folder.cleanup()
