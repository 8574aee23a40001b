"""An API server of its own for the tests of the operator's calls: etcd and kube-apiserver on loopback, no nodes.

The programs come from KUBEBUILDER_ASSETS, else from those that cluster/build.sh made; without them, the tests that need
the server are skipped.
"""

import os
import secrets
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import yaml

from openseer_operator.api import Api

START_SECONDS = 60.0
ROOT = Path(__file__).parents[2]


def _programs() -> Path | None:
    cache = Path(os.environ.get("OPENSEER_CACHE", Path.home() / ".cache/openseer"))
    named = os.environ.get("KUBEBUILDER_ASSETS")
    folders = [Path(named)] if named else sorted((cache / "programs").glob("*"))
    found = [one for one in folders if all((one / name).exists() for name in ("etcd", "kube-apiserver"))]
    return found[-1] if found else None


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A server with the project's CRD, as its administrator."""
    programs = _programs()
    if programs is None:
        pytest.skip("no etcd and kube-apiserver: make cluster-tools builds them; or set KUBEBUILDER_ASSETS")
    folder = tmp_path_factory.mktemp("api")
    peers, clients, port, token = _port(), _port(), _port(), secrets.token_hex(16)
    (folder / "tokens").write_text(f"{token},admin,admin,system:masters\n")
    subprocess.run(["openssl", "genrsa", "-out", str(folder / "sa.key"), "2048"], check=True, capture_output=True)
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
    server = [
        str(programs / "kube-apiserver"),
        f"--etcd-servers=http://127.0.0.1:{clients}",
        f"--cert-dir={folder}/pki",
        f"--secure-port={port}",
        "--bind-address=127.0.0.1",
        f"--token-auth-file={folder}/tokens",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.99.0.0/24",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder}/sa.key",
        f"--service-account-signing-key-file={folder}/sa.key",
        # Nobody makes service accounts here: pods are taken as they are.
        "--disable-admission-plugins=ServiceAccount",
    ]
    with (folder / "log").open("w") as log:
        running = [subprocess.Popen(words, stdout=log, stderr=log) for words in (etcd, server)]
    try:
        url = f"https://127.0.0.1:{port}"
        _await_ready(url, token, folder / "log")
        cluster = {"name": "c", "cluster": {"server": url, "insecure-skip-tls-verify": True}}
        path = folder / "kubeconfig"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [cluster],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path.write_text(yaml.safe_dump(document))
        _make_kind(url, token)
        yield path
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait()


def _request(url: str, token: str, data: bytes | None = None) -> str:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/yaml"}
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=5, context=context) as reply:
        return reply.read().decode()


def _await_ready(url: str, token: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        try:
            _request(f"{url}/readyz", token)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(log.read_text()[-2000:])


def _make_kind(url: str, token: str) -> None:
    definitions = f"{url}/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    _request(definitions, token, (ROOT / "crds/rolloutjobs.yaml").read_bytes())
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        try:
            _request(f"{url}/apis/openseer.dev/v1alpha1/rolloutjobs", token)
            return
        except urllib.error.HTTPError:
            time.sleep(0.1)
    raise AssertionError("the API server does not serve RolloutJobs")


@pytest.fixture
async def api(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    """The operator's own client of that server."""
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    client = await Api.connect()
    yield client
    await client.close()
