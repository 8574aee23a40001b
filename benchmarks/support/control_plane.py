"""A Kubernetes control plane on loopback with nodes simulated by kwok, and a Redis, all in one temporary folder.

etcd, kube-apiserver, kube-controller-manager, kube-scheduler and Redis are real; a pod is Running as soon as it has a
node. The programs are those of KUBEBUILDER_ASSETS, else those that cluster/build.sh built.
"""

import asyncio
import contextlib
import os
import secrets
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import yaml

from openseer_store.embedded import LAUNCHER, find_server

Json = dict[str, Any]

PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
START_SECONDS = 60.0
"""Longest start of a server."""
STOP_SECONDS = 20.0
"""Longest end of a process that is asked to end; then it is killed."""
CALL_SECONDS = 60.0
"""Longest call to the API server."""
CALLS_AT_ONCE = 32
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")

# kwok's stages of nodes and pods, from its own fast stages. It simulates pods only if it has a stage for nodes.
STAGES = """
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: node-ready}
spec:
  resourceRef: {apiGroup: v1, kind: Node}
  selector:
    matchExpressions:
    - {key: '.status.conditions.[] | select( .type == "Ready" ) | .status', operator: NotIn, values: ["True"]}
  next:
    statusTemplate: |
      {{ $now := Now }}
      conditions:
      - {type: Ready, status: "True", reason: KubeletReady, message: "", lastHeartbeatTime: {{ $now | Quote }},
         lastTransitionTime: {{ $now | Quote }}}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-ready}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: .metadata.deletionTimestamp, operator: DoesNotExist}
    - {key: .status.phase, operator: In, values: [Pending]}
  next:
    statusTemplate: |
      {{ $now := Now }}
      phase: Running
      startTime: {{ $now | Quote }}
      podIP: {{ PodIPWith .spec.nodeName false .metadata.uid .metadata.name .metadata.namespace | Quote }}
      conditions:
      {{ range $type := list "Initialized" "ContainersReady" "Ready" }}
      - {type: {{ $type }}, status: "True", lastTransitionTime: {{ $now | Quote }}}
      {{ end }}
      containerStatuses:
      {{ range .spec.containers }}
      - name: {{ .name | Quote }}
        image: {{ .image | Quote }}
        imageID: ""
        ready: true
        restartCount: 0
        state: {running: {startedAt: {{ $now | Quote }}}}
      {{ end }}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-delete}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: .metadata.deletionTimestamp, operator: Exists}
  next: {delete: true}
"""


class MissingProgramsError(Exception):
    """The programs of a control plane are not on this machine."""


def find_programs() -> Path:
    """The folder of the control plane's programs."""
    cache = Path(os.environ.get("OPENSEER_CACHE", Path.home() / ".cache/openseer"))
    named = os.environ.get("KUBEBUILDER_ASSETS")
    for folder in [Path(named)] if named else sorted((cache / "programs").glob("*"), reverse=True):
        if all((folder / name).exists() for name in PROGRAMS):
            return folder
    raise MissingProgramsError(
        f"no folder with {', '.join(PROGRAMS)}: `make cluster-tools` and `cluster/cluster.sh prepare` build them; "
        "or name one in KUBEBUILDER_ASSETS"
    )


def free_port() -> int:
    """A free loopback port outside the kernel's ephemeral range, so that no other socket takes it before its user."""
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


class ControlPlane:
    """Starts all servers (`with ControlPlane() as plane`); at the end stops them and deletes their folder.

    Each process ends with this one, also if this one is killed.
    """

    def __init__(self) -> None:
        self._programs = find_programs()
        self._temporary = tempfile.TemporaryDirectory(prefix="openseer-scale-")
        self.folder = Path(self._temporary.name)
        self.token = secrets.token_hex(16)
        self.url = f"https://127.0.0.1:{free_port()}"
        self.redis = f"redis://127.0.0.1:{free_port()}"
        self.kubeconfig = self.folder / "kubeconfig"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "ControlPlane":
        try:
            self._prepare()
            self._start_store()
            self._start_api()
            self._start_controllers()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def start(self, name: str, *arguments: str | Path, environment: dict[str, str] | None = None) -> None:
        """Runs a program under a name, with its output in a file of that name. Ctrl-C does not reach it."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    def end(self, name: str) -> float:
        """Asks a process to end; returns the seconds until it has ended."""
        process, start = self.processes.pop(name), time.monotonic()
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return time.monotonic() - start

    def check(self) -> None:
        """Raises RuntimeError when a process has ended by itself."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with code {process.returncode}:\n{self.log_tail(name)}")

    def log_tail(self, name: str, lines: int = 15) -> str:
        """The last lines of a program's output."""
        path = self.folder / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def cpu_seconds(self) -> dict[str, float]:
        """Processor seconds of each process so far, and of this one."""
        pids = {name: process.pid for name, process in self.processes.items()} | {"benchmark": os.getpid()}
        return {name: _cpu_seconds(pid) for name, pid in pids.items()}

    def memory_mb(self, name: str) -> tuple[float, float]:
        """Resident memory of a process in MB: now, and the peak."""
        text = Path(f"/proc/{self.processes[name].pid}/status").read_text()
        found = dict(line.split(":", 1) for line in text.splitlines())
        return int(found["VmRSS"].split()[0]) / 1024, int(found["VmHWM"].split()[0]) / 1024

    # ---- start

    def _prepare(self) -> None:
        (self.folder / "tokens").write_text(f"{self.token},admin,admin,system:masters\n")
        (self.folder / "stages.yaml").write_text(STAGES)
        key = ["openssl", "genrsa", "-out", str(self.folder / "accounts.key"), "2048"]
        subprocess.run(key, check=True, capture_output=True)
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "scale", "cluster": {"server": self.url, "insecure-skip-tls-verify": True}}],
            "users": [{"name": "admin", "user": {"token": self.token}}],
            "contexts": [{"name": "scale", "context": {"cluster": "scale", "user": "admin"}}],
            "current-context": "scale",
        }
        self.kubeconfig.write_text(yaml.safe_dump(document))

    def _start_store(self) -> None:
        port = self.redis.rpartition(":")[2]
        arguments = (
            "--bind",
            "127.0.0.1",
            "--port",
            port,
            "--dir",
            str(self.folder),
            "--save",
            "",
            "--appendonly",
            "no",
        )
        self.start("redis", find_server(), *arguments, "--daemonize", "no")

    def _start_api(self) -> None:
        clients, peers = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self.start(
            "etcd",
            self._programs / "etcd",
            f"--data-dir={self.folder}/etcd",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync=true",
            "--log-level=warn",
        )
        self.start(
            "kube-apiserver",
            self._programs / "kube-apiserver",
            f"--etcd-servers={clients}",
            f"--cert-dir={self.folder}/pki",
            f"--secure-port={self.url.rpartition(':')[2]}",
            "--bind-address=127.0.0.1",
            f"--token-auth-file={self.folder}/tokens",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.99.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.folder}/accounts.key",
            f"--service-account-signing-key-file={self.folder}/accounts.key",
        )
        self._await_api()

    def _await_api(self) -> None:
        end = time.monotonic() + START_SECONDS
        request = urllib.request.Request(f"{self.url}/readyz", headers={"Authorization": f"Bearer {self.token}"})
        context = ssl_context()
        while time.monotonic() < end:
            try:
                with urllib.request.urlopen(request, timeout=5, context=context):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise RuntimeError(
            f"kube-apiserver is not ready after {START_SECONDS:.0f} s: {self.log_tail('kube-apiserver')}"
        )

    def _start_controllers(self) -> None:
        common = (f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--secure-port=0")
        # As fast as the machine is: with clients that limit themselves, the limit would be measured.
        common += ("--kube-api-qps=1000", "--kube-api-burst=2000")
        self.start(
            "kube-controller-manager",
            self._programs / "kube-controller-manager",
            *common,
            f"--service-account-private-key-file={self.folder}/accounts.key",
            # The nodes report once that they are ready, and never again.
            "--node-monitor-grace-period=24h",
        )
        self.start("kube-scheduler", self._programs / "kube-scheduler", *common)
        self.start(
            "kwok",
            self._programs / "kwok",
            f"--kubeconfig={self.kubeconfig}",
            "--manage-all-nodes=true",
            "--node-lease-duration-seconds=0",
            "--cidr=10.64.0.0/12",
            f"--config={self.folder}/stages.yaml",
        )

    def _stop(self) -> None:
        """Kills the processes: their state is not kept, so no clean stop is needed."""
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()
        self.processes.clear()
        self._temporary.cleanup()


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def ssl_context() -> ssl.SSLContext:
    """TLS without verification: the server is on loopback and has a self-signed certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class Client:
    """The benchmark's own calls to the API server."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self._gate = asyncio.Semaphore(CALLS_AT_ONCE)

    async def create(self, path: str, bodies: Iterable[Json]) -> None:
        """Creates all objects in the collection at `path`, many at once."""
        await asyncio.gather(*(self._call("POST", path, json=body) for body in bodies))

    async def create_yaml(self, path: str, text: str) -> None:
        """Creates one object from YAML."""
        await self._call("POST", path, data=text, headers={"Content-Type": "application/yaml"})

    async def merge(self, path: str, body: Json) -> None:
        """Sends a merge patch: maps are merged, lists are replaced."""
        headers = {"Content-Type": "application/merge-patch+json"}
        await self._call("PATCH", path, json=body, headers=headers)

    async def items(self, path: str, **query: str) -> list[Json]:
        """All objects of a collection, from the API server's cache."""
        return (await self._call("GET", path, params={"resourceVersion": "0", **query}))["items"]

    async def rows(self, path: str, **query: str) -> list[list[Any]]:
        """A collection as kubectl prints it: a fraction of the objects' size."""
        accept = {"Accept": "application/json;as=Table;g=meta.k8s.io;v=v1"}
        query = {"resourceVersion": "0", "includeObject": "None", **query}
        table: list[Json] = (await self._call("GET", path, params=query, headers=accept))["rows"] or []
        return [row["cells"] for row in table]

    async def _call(self, method: str, path: str, **options: Any) -> Json:
        async with self._gate, self._session.request(method, self._url + path, **options) as response:
            if response.status >= 400:
                raise RuntimeError(f"{method} {path}: {response.status} {(await response.text())[:500]}")
            return await response.json()


@asynccontextmanager
async def client_of(plane: ControlPlane) -> AsyncGenerator[Client]:
    """A client of the plane's API server, as its administrator."""
    headers = {"Authorization": f"Bearer {plane.token}"}
    limit = aiohttp.ClientTimeout(total=CALL_SECONDS)
    connector = aiohttp.TCPConnector(ssl=ssl_context())
    async with aiohttp.ClientSession(headers=headers, timeout=limit, connector=connector) as session:
        yield Client(session, plane.url)
