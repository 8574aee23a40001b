"""etcd and kube-apiserver on loopback, without nodes and controllers: they can be stopped, held and started again."""

import http.client
import os
import secrets
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import yaml

from tests.ports import reserved_port
from tests.repository import ROOT

START_SECONDS = 180.0
ANSWER_SECONDS = 60.0


def programs() -> Path | None:
    """The folder of etcd and kube-apiserver: KUBEBUILDER_ASSETS, else that of cluster/build.sh."""
    cache = Path(os.environ.get("OPENSEER_CACHE", Path.home() / ".cache/openseer"))
    named = os.environ.get("KUBEBUILDER_ASSETS")
    folders = [Path(named)] if named else sorted((cache / "programs").glob("*"))
    found = [folder for folder in folders if all((folder / name).exists() for name in ("etcd", "kube-apiserver"))]
    return found[-1] if found else None


class ControlPlane:
    """`with ControlPlane(folder, programs)`: a server with the project's CRD; `kubeconfig` is its administrator's."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.kubeconfig = folder / "kubeconfig"
        self._folder = folder
        self._url = f"https://127.0.0.1:{reserved_port()}"
        self._token = secrets.token_hex(16)
        self._log = folder / "log"
        self._etcd, self._api = self._commands(programs)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "ControlPlane":
        (self._folder / "tokens").write_text(f"{self._token},admin,admin,system:masters\n")
        key = str(self._folder / "sa.key")
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        self.kubeconfig_of(self._token, self.kubeconfig)
        try:
            self._launch("etcd", self._etcd)
            self.start()
            self._make_kind()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in ("api", "etcd"):
            process = self._running.get(name)
            if process is not None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                process.wait()

    def start(self) -> None:
        """Starts the API server; returns when it serves."""
        self._launch("api", self._api)
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            try:
                self.request("/readyz")
                return
            except (OSError, http.client.HTTPException):  # also of one that is just starting
                time.sleep(0.2)
        raise AssertionError(self._log.read_text()[-2000:])

    def stop(self) -> None:
        """Ends the API server as a crash would: connections break at once."""
        process = self._running.pop("api")
        process.kill()
        process.wait()

    def freeze(self) -> None:
        """Freezes the API server: it keeps its connections and answers nothing until `unfreeze`."""
        self._running["api"].send_signal(signal.SIGSTOP)

    def unfreeze(self) -> None:
        """Continues a frozen API server."""
        self._running["api"].send_signal(signal.SIGCONT)

    def serve_again(self) -> None:
        """Undoes `stop` and `freeze`."""
        if "api" not in self._running:
            self.start()
        self.unfreeze()

    def request(
        self, path: str, data: bytes | None = None, method: str | None = None, content: str = "application/yaml"
    ) -> str:
        """Makes a call: GET, with `data` (YAML) POST, or `method`. Raises urllib's errors."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": content}
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        request = urllib.request.Request(self._url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS, context=context) as reply:
            return reply.read().decode()

    def kubeconfig_of(self, token: str, path: Path) -> Path:
        """Writes the kubeconfig of a user with that token."""
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": self._url, "insecure-skip-tls-verify": True}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path.write_text(yaml.safe_dump(document))
        return path

    def make_namespace(self, name: str, labels: dict[str, str] | None = None) -> None:
        """Creates a namespace that admits every pod, unless its labels set a Pod Security level."""
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels or {}}}
        self.request("/api/v1/namespaces", yaml.safe_dump(body).encode())

    def _launch(self, name: str, command: list[str]) -> None:
        with self._log.open("a") as log:
            self._running[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def _commands(self, programs: Path) -> tuple[list[str], list[str]]:
        folder, peers, clients = self._folder, reserved_port(), reserved_port()
        etcd = [
            str(programs / "etcd"),
            f"--data-dir={folder}/etcd",
            f"--listen-client-urls=http://127.0.0.1:{clients}",
            f"--advertise-client-urls=http://127.0.0.1:{clients}",
            f"--listen-peer-urls=http://127.0.0.1:{peers}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peers}",
            f"--initial-cluster=default=http://127.0.0.1:{peers}",
            "--unsafe-no-fsync=true",
        ]
        api = [
            str(programs / "kube-apiserver"),
            f"--etcd-servers=http://127.0.0.1:{clients}",
            f"--cert-dir={folder}/pki",
            f"--secure-port={self._url.rpartition(':')[2]}",
            "--bind-address=127.0.0.1",
            f"--token-auth-file={folder}/tokens",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.99.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder}/sa.key",
            f"--service-account-signing-key-file={folder}/sa.key",
            # No controller creates service accounts here, so pods are admitted without one.
            "--disable-admission-plugins=ServiceAccount",
        ]
        return etcd, api

    def _make_kind(self) -> None:
        crd = (ROOT / "crds/rolloutjobs.yaml").read_bytes()
        self.request("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            try:
                self.request("/apis/openseer.dev/v1alpha1/rolloutjobs")
                return
            except urllib.error.HTTPError:
                time.sleep(0.1)
        raise AssertionError("the API server does not serve RolloutJobs")
