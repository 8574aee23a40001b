"""`make images`: the commands of docs/install.md turn a clone into a chart that names both images by digest.

Builder, helm and scripts are the real ones. The Dockerfiles lose their slow steps (RUN, COPY), the registry is
simulated, and kubectl and the cluster behind helm only record their calls.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.registry import played_registry
from tests.charts.rendering import HELM, KUBERNETES, ROOT, program

BUILDAH = program("buildah")
BILL = '{"bomFormat": "CycloneDX"}'
SECONDS = 540
"""Timeout of a command that takes 10 s on an idle machine."""
KEPT = ("ARG", "FROM", "ENV", "LABEL", "WORKDIR", "USER", "CMD")
HELM_WITHOUT_A_CLUSTER = """#!/usr/bin/env bash
[ "$1" = upgrade ] || exec {helm} "$@"
shift; arguments=(--plain-http --kube-version {kubernetes})
for argument in "$@"; do
  case $argument in --install | --create-namespace | --wait) ;; *) arguments+=("$argument") ;; esac
done
exec {helm} template "${{arguments[@]}}" >{installed}
"""
KUBECTL = """#!/usr/bin/env bash
echo "$@" >>{asked}
[ "$1" != apply ] || [ -e "$3" ]
"""
DOCKER = """#!/usr/bin/env bash
echo "$@" >>{asked}
case $1 in
  create) echo c0 ;;
  cp) tar -C {home} -c bill ;;
  inspect)
    image=${{@: -1}}
    printf '%s\n' other/openseer@sha256:{other} "${{image%:*}}@sha256:{digest}" ;;
esac
"""

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(HELM is None, reason="no helm: neither on the path nor built by cluster/build.sh"),
]
needs_buildah = pytest.mark.skipif(BUILDAH is None or os.geteuid() != 0, reason="no buildah, or not root")


class Clone:
    """A clone of the repository whose images build in a second, with the programs that its commands call."""

    def __init__(self, home: Path) -> None:
        self.root, self.bin, self.home = home / "clone", home / "bin", home
        self.bin.mkdir()
        self.asked = home / "asked"
        for name in ("charts", "images", "examples"):
            shutil.copytree(ROOT / name, self.root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("Makefile", "pyproject.toml", ".gitignore"):
            shutil.copy(ROOT / name, self.root)
        for name in ("operator", "worker"):
            text = (ROOT / f"Dockerfile.{name}").read_text(encoding="utf-8")
            steps = re.findall(r"^[A-Z]+ (?:.*\\\n)*.*\n", text, re.MULTILINE)
            kept = [step for step in steps if step.startswith(KEPT)]
            (self.root / f"Dockerfile.{name}").write_text("".join(kept) + "COPY bill /opt/openseer/sbom.cdx.json\n")
        for folder in (self.root, home):
            (folder / "bill").write_text(BILL)
        (home / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{home}/store"\nrunroot = "{home}/store-run"\n'
        )
        self.installs("helm", f'#!/usr/bin/env bash\nexec {HELM} "$@"\n')
        git = ("git", "-C", str(self.root), "-c", "user.name=a", "-c", "user.email=a@example.com")
        for words in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "--message", "a clone")):
            subprocess.run([*git, *words], check=True)

    def installs(self, name: str, script: str) -> None:
        (self.bin / name).write_text(script)
        (self.bin / name).chmod(0o755)

    def run(self, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if name not in ("REGISTRY", "PUSH", "ENGINE")}
        paths = {"PATH": f"{self.bin}:{inherited['PATH']}", "CONTAINERS_STORAGE_CONF": f"{self.home}/storage.conf"}
        helms = {f"HELM_{name}_HOME": str(self.home / name) for name in ("CACHE", "CONFIG", "DATA")}
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.root,
            env=inherited | paths | helms | {"BUILD_FLAGS": "--build-arg BASE=scratch"} | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )

    def made(self, name: str) -> Path:
        return self.root / "dist" / "images" / name

    def values(self) -> dict[str, Any]:
        return yaml.safe_load(self.made("values.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def commands_of_the_page() -> str:
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs/install.md").read_text(), re.MULTILINE | re.DOTALL))


@needs_buildah
def test_the_pages_commands_install_images_and_chart_by_digest(clone: Clone, tmp_path: Path) -> None:
    installed = tmp_path / "installed.yaml"
    clone.installs("helm", HELM_WITHOUT_A_CLUSTER.format(helm=HELM, kubernetes=KUBERNETES, installed=installed))
    clone.installs("kubectl", KUBECTL.format(asked=clone.asked))
    with played_registry() as registry:
        script = commands_of_the_page()
        assert "registry.example/team" in script
        done = clone.run(script.replace("registry.example/team", f"{registry.host}/team"), PLAIN_HTTP="1")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in clone.asked.read_text().splitlines()] == [
        *("create", "create", "get", "apply", "get", "wait", "logs", "apply")
    ]
    values = clone.values()
    references = {name: f"{image['repository']}@{image['digest']}" for name, image in values.items()}
    for image in values.values():
        repository = image["repository"].removeprefix(f"{registry.host}/")
        pushed = {name: registry.manifests[repository, name][1] for name in (image["digest"], image["tag"])}
        assert len(set(pushed.values())) == 1
        config = json.loads(registry.blobs[json.loads(pushed[image["tag"]])["config"]["digest"]])
        labels = {name.rpartition("image.")[2]: value for name, value in config["config"]["Labels"].items()}
        assert (labels["title"], labels["base.name"]) == (repository.removeprefix("team/"), "scratch")
        assert re.fullmatch(r"[0-9a-f]{40}", labels["revision"])
        assert all(labels[name] for name in ("version", "created", "licenses", "source"))
    assert ("team/charts/openseer", "0.1.0") in registry.manifests
    (operator,) = (
        entry["spec"]["template"]["spec"]
        for entry in yaml.safe_load_all(installed.read_text())
        if entry and entry["kind"] == "Deployment" and entry["metadata"]["name"] == "openseer"
    )
    variables = {entry["name"]: entry.get("value") for entry in operator["containers"][0]["env"]}
    assert operator["containers"][0]["image"] == variables["OPENSEER_STORE_IMAGE"] == references["image"]
    assert variables["OPENSEER_WORKER_IMAGE"] == references["workerImage"]
    assert operator["imagePullSecrets"] == [{"name": "registry"}]


@needs_buildah
def test_without_a_push_images_are_oci_layouts_with_a_bill_of_materials(clone: Clone) -> None:
    done = clone.run("make images", REGISTRY="registry.example/lab", ENGINE="none")
    assert done.returncode == 0, done.stderr
    for value, title in (("image", "openseer-operator"), ("workerImage", "openseer-worker")):
        index = json.loads((clone.made(title) / "index.json").read_text())
        assert [entry["digest"] for entry in index["manifests"]] == [clone.values()[value]["digest"]]
        assert clone.made(f"{title}.cdx.json").read_text() == BILL
    assert clone.values()["workerImage"]["tag"] == "0.1.0-none"
    assert clone.made("openseer-0.1.0.tgz").exists()


def test_with_docker_a_pushed_image_is_named_by_its_digest(clone: Clone, tmp_path: Path) -> None:
    script = DOCKER.format(asked=clone.asked, home=tmp_path, other="0" * 64, digest="1" * 64)
    clone.installs("docker", script)
    with played_registry() as registry:
        done = clone.run("make images PUSH=1 BUILDER=docker", REGISTRY=f"{registry.host}/lab", PLAIN_HTTP="1")
    assert done.returncode == 0, done.stderr
    pushes = [line for line in clone.asked.read_text().splitlines() if line.startswith("push")]
    assert pushes == [f"push --quiet {registry.host}/lab/openseer-{name}:0.1.0" for name in ("operator", "worker")]
    assert [image["digest"] for image in clone.values().values()] == ["sha256:" + "1" * 64] * 2
    assert clone.made("openseer-worker.cdx.json").read_text() == BILL


@pytest.mark.parametrize("image", ["operator", "worker"])
def test_an_image_is_built_from_the_mirrors_that_are_named(image: str, tmp_path: Path) -> None:
    text = (ROOT / f"Dockerfile.{image}").read_text(encoding="utf-8").replace("\\\n", " ")
    steps = [line.split(maxsplit=1) for line in text.splitlines() if line.startswith(("ARG ", "RUN "))]
    for fetches, names in (("apt-get", {"APT_MIRROR"}), ("uv pip sync", {"PIP_INDEX_URL", "UV_DEFAULT_INDEX"})):
        at = next(number for number, step in enumerate(steps) if fetches in step[1])
        assert names <= {step[1] for step in steps[:at]}, "declared before the step, without a default"
    sources = tmp_path / "debian.sources"
    (change,) = re.findall(r"if \[ -n \"\$APT_MIRROR\" \].*? fi", text)
    for mirror, expected in (
        ("", "http://deb.example/debian"),
        ("http://mirror.example", "http://mirror.example/debian"),
    ):
        sources.write_text("Types: deb\nURIs: http://deb.example/debian\n", encoding="utf-8")
        script = change.replace("/etc/apt/sources.list.d/debian.sources", str(sources))
        subprocess.run(["sh", "-ec", script], env=os.environ | {"APT_MIRROR": mirror}, check=True)
        assert sources.read_text(encoding="utf-8") == f"Types: deb\nURIs: {expected}\n"


WRONG = {
    "": 'REGISTRY: found "", allowed: a host with a dot or a port',
    "REGISTRY=team": 'REGISTRY: found "team", allowed',
    "REGISTRY=https://registry.example/team": "REGISTRY: found",
    "REGISTRY=registry.example/team ENGINE=tpu": "ENGINE: found tpu, allowed: gpu, cpu, none",
    "REGISTRY=registry.example/team PUSH=yes": "PUSH: found yes, allowed: 1",
    "REGISTRY=registry.example/team BUILDER=kaniko": 'BUILDER: found "kaniko", allowed: buildah, docker',
}


def test_a_wrong_variable_is_refused_before_anything_is_built(clone: Clone) -> None:
    for words, expected in WRONG.items():
        done = clone.run(f"make images {words}")
        assert done.returncode != 0
        assert expected in done.stderr
    assert not (clone.root / "dist").exists()
