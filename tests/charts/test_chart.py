"""The chart renders the right objects for every variant of its values, and requests only rights that are used."""

import base64
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from openseer_operator.pod_settings import JobPodSettings
from openseer_operator.settings import OperatorSettings
from openseer_process.store_access import cluster_domain
from openseer_process.store_hosts import StoreHosts
from tests.charts.rendering import CHART, HELM, KUBERNETES, ROOT, VARIANTS, helm, template
from tests.operator.stores import KEYS

pytestmark = pytest.mark.skipif(HELM is None, reason="no helm: neither on the path nor built by cluster/build.sh")


OF_JOBS = ("rel-openseer", ["rolloutjobs"])


@cache
def objects_of(variant: str) -> tuple[dict[str, Any], ...]:
    done = template(VARIANTS[variant])
    assert done.returncode == 0, done.stderr
    return tuple(entry for entry in yaml.safe_load_all(done.stdout) if entry)


def of_kind(variant: str, *kinds: str) -> list[dict[str, Any]]:
    return [entry for entry in objects_of(variant) if entry["kind"] in kinds]


def pods(variant: str) -> dict[str, dict[str, Any]]:
    """The specs of the pods by the name of their Deployment."""
    return {entry["metadata"]["name"]: entry["spec"]["template"]["spec"] for entry in of_kind(variant, "Deployment")}


def pod(variant: str) -> dict[str, Any]:
    return pods(variant)["rel-openseer"]


def api(variant: str) -> dict[str, Any]:
    return pods(variant)["rel-openseer-api"]


def rules(variant: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Namespace ("" is the whole cluster), role and rule."""
    for role in of_kind(variant, "Role", "ClusterRole"):
        for rule in role["rules"]:
            yield role["metadata"].get("namespace", ""), role["metadata"]["name"], rule


def settings(variant: str) -> OperatorSettings:
    variables = {entry["name"]: entry.get("value", "from a field") for entry in pod(variant)["containers"][0]["env"]}
    assert variables["OPENSEER_STORE_KEYS"] == "/etc/openseer/store-keys"
    return OperatorSettings.read({**variables, "OPENSEER_STORE_KEYS": str(KEYS)})


def test_the_linter_finds_nothing() -> None:
    done = helm("lint", str(CHART), "--strict", "--kube-version", KUBERNETES)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_object_has_a_namespace_and_the_label_of_its_release(variant: str) -> None:
    for entry in objects_of(variant):
        if entry["kind"] != "CustomResourceDefinition":
            assert entry["metadata"]["labels"]["app.kubernetes.io/instance"] == "rel"
        if not entry["kind"].startswith(("Cluster", "Custom")):
            assert entry["metadata"]["namespace"]
    names = [
        (entry["kind"], entry["metadata"].get("namespace"), entry["metadata"]["name"]) for entry in objects_of(variant)
    ]
    assert len(names) == len(set(names))


def test_objects_that_are_switched_off_are_absent() -> None:
    assert {entry["kind"] for entry in objects_of("everything off")} == {"Deployment"}


def test_objects_that_are_switched_on_are_present() -> None:
    kinds = {entry["kind"] for entry in objects_of("everything on")}
    assert {"ServiceMonitor", "Service", "NetworkPolicy", "PodDisruptionBudget"} <= kinds
    assert "ServiceMonitor" not in {entry["kind"] for entry in objects_of("as it is")}


def test_prometheus_takes_namespace_and_job_from_the_operator() -> None:
    (monitor,) = of_kind("everything on", "ServiceMonitor")
    assert [endpoint["honorLabels"] for endpoint in monitor["spec"]["endpoints"]] == [True]


def test_the_crd_is_the_projects_own_and_stays_after_an_uninstall() -> None:
    (found,) = of_kind("as it is", "CustomResourceDefinition")
    assert found["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert found == yaml.safe_load((ROOT / "crds" / "rolloutjobs.yaml").read_text(encoding="utf-8"))


def test_a_crd_without_the_keep_policy_equals_its_file() -> None:
    done = template({"crds": {"keep": False}})
    assert (ROOT / "crds" / "rolloutjobs.yaml").read_text(encoding="utf-8").strip() in done.stdout


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_pod_is_restricted(variant: str) -> None:
    for spec in pods(variant).values():
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_the_operator_reads_the_environment_of_its_pod() -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["appVersion"]
    plain, full = settings("as it is"), settings("everything on")
    assert plain.worker_image == f"openseer-worker:{version}"
    assert plain.store_image == f"openseer-operator:{version}" == pod("as it is")["containers"][0]["image"]
    assert (plain.watched, plain.node_condition, plain.network_policies) == ((), "", True)
    assert (full.store_image, full.node_condition) == ("valkey:8", "AcceleratedHardwareReady")
    assert (plain.pull_secrets, full.pull_secrets) == ((), ({"name": "registry"},))
    assert settings("namespaced").watched == ("lab", "prod")
    assert plain.lease == "rel-openseer"


def test_an_image_with_a_digest_is_named_by_it_and_by_no_tag() -> None:
    digest = "sha256:" + "0" * 64
    image = {"repository": "registry.example/a", "tag": "1", "digest": digest}
    done = template({"image": image, "workerImage": image, "redisImage": image})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f'"registry.example/a@{digest}"') == 4
    assert "registry.example/a:1" not in done.stdout


def notes(tmp_path: Path, values: dict[str, Any]) -> str:
    """The notes that `helm install` prints. Without a cluster, helm renders them only as an ordinary template."""
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart, dirs_exist_ok=True)
    text = (chart / "templates" / "NOTES.txt").read_text(encoding="utf-8")
    indented = "\n".join(f"  {line}" for line in text.splitlines())
    (chart / "templates" / "notes.yaml").write_text(f"kind: Notes\ntext: |\n{indented}\n", encoding="utf-8")
    done = template(values, chart)
    assert done.returncode == 0, done.stderr
    (found,) = (entry for entry in yaml.safe_load_all(done.stdout) if entry and entry["kind"] == "Notes")
    return found["text"]


def test_the_notes_name_each_image_that_no_registry_has(tmp_path: Path) -> None:
    plain = notes(tmp_path, {})
    assert "image.repository: found openseer-operator, which no registry has" in plain
    assert "workerImage.repository: found openseer-worker, which no registry has" in plain
    assert "make images REGISTRY=" in plain
    ours = {"image": {"repository": "registry.example/o"}, "workerImage": {"repository": "localhost/w"}}
    assert "found localhost/w, which no registry has" in notes(tmp_path, ours)
    assert "registry.example/o" not in notes(tmp_path, ours)
    assert "WARNING" not in notes(tmp_path, ours | {"jobImagePullPolicy": "Never"})


def test_the_operator_reads_the_admins_settings_for_jobs() -> None:
    plain, full = settings("as it is").pods, settings("everything on").pods
    assert plain == JobPodSettings()
    restricted = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert full.pod_security_context == {**restricted, "fsGroupChangePolicy": "OnRootMismatch"}
    assert (full.inherit_labels, full.start_seconds) == (("team", "example.com/*"), 7200)
    assert (full.probes.liveness_failures, full.ca_bundle.config_map) == (12, "trust")
    assert full.env == ({"name": "HTTPS_PROXY", "value": "http://proxy:3128"},)
    for spec in pods("everything on").values():
        assert spec["securityContext"] == restricted


def test_traces_and_the_form_of_logs_reach_api_and_jobs() -> None:
    endpoint = {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4318"}
    sampler = {"name": "OTEL_TRACES_SAMPLER", "value": "parentbased_traceidratio"}
    log = {"name": "OPENSEER_LOG", "value": "json"}
    full = settings("everything on").pods
    assert (full.driver_env, full.log_format) == ((endpoint, sampler), "json")
    variables = api("everything on")["containers"][0]["env"]
    assert all(variable in variables for variable in (endpoint, sampler, log))
    assert log in pod("everything on")["containers"][0]["env"]
    assert endpoint not in pod("everything on")["containers"][0]["env"]
    assert not [one for one in api("as it is")["containers"][0]["env"] if one["name"].startswith("OTEL_")]


def test_operator_and_api_trust_only_the_named_ca_bundle() -> None:
    for spec in pods("everything on").values():
        (container,) = spec["containers"]
        assert {"name": "SSL_CERT_FILE", "value": "/etc/openseer-ca/ca-bundle.crt"} in container["env"]
        (volume,) = [entry for entry in spec["volumes"] if entry["name"] == "ca"]
        assert volume["configMap"]["name"] == "trust"
    for spec in pods("as it is").values():
        assert [entry["name"] for entry in spec["volumes"]] == ["tmp", "store-keys"]


def test_an_uninstall_with_the_crd_deletes_jobs_before_the_operator() -> None:
    (hook,) = of_kind("gone with the chart", "Job")
    assert hook["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"
    spec = hook["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] == pod("gone with the chart")["serviceAccountName"]
    assert spec["containers"][0]["command"] == ["python", "-m", "openseer_operator.uninstall"]
    of_the_operator = [rule for _, name, rule in rules("gone with the chart") if name == "rel-openseer"]
    (verbs,) = [rule["verbs"] for rule in of_the_operator if rule["resources"] == ["rolloutjobs"]]
    assert {"list", "delete"} <= set(verbs)
    selectors = [entry["spec"]["selector"]["matchLabels"] for entry in of_kind("gone with the chart", "Deployment")]
    labels = hook["spec"]["template"]["metadata"]["labels"]
    assert (labels["team"], hook["spec"]["template"]["metadata"]["annotations"]) == ("a", {"seen": "yes"})
    assert not any(selector.items() <= labels.items() for selector in selectors)


@pytest.mark.parametrize("variant", ["as it is", "everything off"])
def test_jobs_stay_after_an_uninstall_that_leaves_their_crd(variant: str) -> None:
    assert of_kind(variant, "Job") == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_rule_has_a_wildcard(variant: str) -> None:
    for _, name, rule in rules(variant):
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]], name


@pytest.mark.parametrize("variant", VARIANTS)
def test_jobs_are_listed_and_watched_and_never_read_one_by_one(variant: str) -> None:
    verbs = [rule["verbs"] for _, name, rule in rules(variant) if (name, rule["resources"]) == OF_JOBS]
    assert verbs == ([["list", "watch", "patch", "delete"]] * len(verbs))


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_role_may_read_secrets(variant: str) -> None:
    verbs = {name: rule["verbs"] for _, name, rule in rules(variant) if "secrets" in rule["resources"]}
    assert verbs == ({"rel-openseer": ["create"]} if variant != "everything off" else {})


def test_operator_and_api_have_only_the_listed_rights() -> None:
    found: dict[str, set[str]] = {}
    for _, name, rule in rules("everything on"):
        if name not in ("rel-openseer-view", "rel-openseer-edit"):
            for resource in rule["resources"]:
                found.setdefault(resource, set()).update(rule["verbs"])
    assert not {"escalate", "bind", "impersonate", "deletecollection"} & set().union(*found.values())
    assert (
        not {"roles", "rolebindings", "clusterroles", "pods/exec", "pods/log", "serviceaccounts/token"} & found.keys()
    )
    assert found.keys() == {
        *("rolloutjobs", "rolloutjobs/status", "rolloutjobs/finalizers", "pods", "services", "configmaps"),
        *("serviceaccounts", "persistentvolumeclaims", "secrets", "statefulsets", "deployments"),
        *("poddisruptionbudgets", "networkpolicies", "events", "leases", "nodes/status"),
        *("tokenreviews", "subjectaccessreviews"),
        *("nodes", "persistentvolumes", "csidrivers"),
    }
    assert set().union(*(found[name] for name in ("nodes", "persistentvolumes", "csidrivers"))) == {"get", "list"}
    assert found["secrets"] == {"create"}


def test_the_page_lists_the_rights_of_the_operator() -> None:
    text = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    section = text.split("\n## Rights\n")[1].split("\n### ")[0]
    listed = {
        resource: set(verbs.split(", "))
        for names, verbs in re.findall(r"^\| (`[^|]+`) \| ([a-z, ]+) \|", section, re.MULTILINE)
        for resource in re.findall(r"`([^`]+)`", names)
    }
    granted: dict[str, set[str]] = {}
    for _, name, rule in rules("as it is"):
        if name in ("rel-openseer", "rel-openseer-lease"):
            for resource in rule["resources"]:
                granted.setdefault(resource, set()).update(rule["verbs"])
    assert listed == granted


def test_operator_and_api_mount_the_store_keys_of_one_secret() -> None:
    (secret,) = of_kind("as it is", "Secret")
    assert len(base64.b64decode(secret["data"]["1"])) == 64
    for spec in pods("as it is").values():
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        assert volumes["store-keys"]["secret"] == {"secretName": secret["metadata"]["name"], "defaultMode": 0o440}
        (container,) = spec["containers"]
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
        assert mounts["store-keys"] == {"name": "store-keys", "mountPath": "/etc/openseer/store-keys", "readOnly": True}


def test_the_operator_receives_the_egress_and_scrape_rules_of_jobs() -> None:
    plain, full = settings("as it is"), settings("everything on")
    assert (plain.metrics_from, plain.egress, plain.stores.hosts) == (
        (),
        None,
        replace(StoreHosts(), domain=cluster_domain()),
    )
    assert full.metrics_from == ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}},)
    assert full.egress == ({"to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]},)
    assert full.stores.hosts is not None
    assert full.stores.hosts.allowed == ("cache.example", "*.pool.example", "10.20.0.0/16")
    assert plain.stores.readers == ("system:rel-openseer", "system:rel-openseer-api")
    (gateway,) = api("everything on")["containers"]
    operator = {each["name"]: each.get("value") for each in pod("everything on")["containers"][0]["env"]}
    for each in gateway["env"]:
        if each["name"].startswith("OPENSEER_STORE_"):
            assert operator[each["name"]] == each["value"]


def test_nodes_are_patched_only_if_a_repair_condition_is_set() -> None:
    def on_nodes(variant: str) -> list[list[str]]:
        return [rule["verbs"] for _, _, rule in rules(variant) if "nodes/status" in rule["resources"]]

    assert (on_nodes("as it is"), on_nodes("everything on")) == ([], [["patch"]])


def test_a_namespaced_install_has_cluster_rights_only_for_reviews() -> None:
    users = ("rel-openseer-view", "rel-openseer-edit")
    found = {(namespace, name) for namespace, name, _ in rules("namespaced") if name not in users}
    assert found == {
        ("", "rel-openseer-api-reviews"),
        ("lab", "rel-openseer"),
        ("lab", "rel-openseer-api"),
        ("prod", "rel-openseer"),
        ("prod", "rel-openseer-api"),
        ("default", "rel-openseer-node-events"),
        ("system", "rel-openseer-lease"),
    }
    events = [rule for namespace, _, rule in rules("namespaced") if namespace == "default"]
    assert [rule["resources"] for rule in events] == [["events"]]


@pytest.mark.parametrize("variant", ["as it is", "namespaced", "everything on"])
def test_every_role_is_bound_to_its_account(variant: str) -> None:
    bindings = of_kind(variant, "RoleBinding", "ClusterRoleBinding")
    for entry in bindings:
        spec = api(variant) if "-api" in entry["roleRef"]["name"] else pod(variant)
        (subject,) = entry["subjects"]
        assert (subject["name"], subject["namespace"]) == (spec["serviceAccountName"], "system")
    bound = {(entry["metadata"].get("namespace", ""), entry["roleRef"]["name"]) for entry in bindings}
    users = ("rel-openseer-view", "rel-openseer-edit")
    assert bound == {(namespace, name) for namespace, name, _ in rules(variant) if name not in users}


def test_the_only_writable_lease_is_the_operators() -> None:
    named = [rule["resourceNames"] for _, _, rule in rules("as it is") if "resourceNames" in rule]
    assert named == [[settings("as it is").lease]]


def test_the_api_changes_nothing_in_the_cluster() -> None:
    verbs = {
        (resource, verb)
        for _, name, rule in rules("as it is")
        if name.startswith("rel-openseer-api")
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    asks = {("tokenreviews", "create"), ("subjectaccessreviews", "create")}
    assert verbs == asks | {("rolloutjobs", "get"), ("rolloutjobs", "list")}


def test_the_edit_role_has_batches_and_the_view_role_has_not() -> None:
    found = {name: rule["verbs"] for _, name, rule in rules("as it is") if "rolloutjobs/batches" in rule["resources"]}
    assert found == {"rel-openseer-edit": ["get", "update"]}


def test_the_api_runs_from_the_operators_image_with_its_settings() -> None:
    (plain,), (full,) = api("as it is")["containers"], api("everything on")["containers"]
    assert plain["image"] == pod("as it is")["containers"][0]["image"]
    assert plain["command"] == ["python", "-m", "openseer_api.main"]
    variables = {entry["name"]: entry["value"] for entry in full["env"]}
    assert (variables["OPENSEER_API_AUDIENCES"], variables["HF_HUB_OFFLINE"]) == ("openseer,other", "1")
    ports = {port["name"]: str(port["containerPort"]) for port in full["ports"]}
    assert ports == {"http": variables["OPENSEER_HTTP_PORT"], "metrics": variables["OPENSEER_METRICS_PORT"]}
    mounts = ["/tmp", "/etc/openseer/store-keys", "/etc/openseer-ca", "/models"]
    assert [entry["mountPath"] for entry in full["volumeMounts"]] == mounts
    (named,) = api("namespaced")["containers"]
    assert {"name": "OPENSEER_WATCH_NAMESPACES", "value": "lab,prod"} in named["env"]


def test_the_api_has_a_service_and_a_network_policy() -> None:
    def of_the_api(variant: str, kind: str) -> list[dict[str, Any]]:
        return [entry for entry in of_kind(variant, kind) if entry["metadata"]["name"] == "rel-openseer-api"]

    (plain,), (full,) = of_the_api("as it is", "Service"), of_the_api("everything on", "Service")
    assert (plain["spec"]["type"], plain["spec"]["ports"][0]["port"]) == ("ClusterIP", 80)
    assert (full["spec"]["type"], full["spec"]["ports"][0]["port"]) == ("LoadBalancer", 8000)
    labels = next(entry for entry in of_the_api("as it is", "Deployment"))["spec"]["template"]["metadata"]["labels"]
    assert plain["spec"]["selector"].items() <= labels.items()
    (budget,) = of_the_api("as it is", "PodDisruptionBudget")
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
    (policy,) = of_the_api("everything on", "NetworkPolicy")
    assert policy["spec"]["ingress"] == [
        {"ports": [{"protocol": "TCP", "port": 8080}], "from": [{"podSelector": {}}]},
        {"ports": [{"protocol": "TCP", "port": 8081}], "from": [{"namespaceSelector": {}}]},
    ]
    assert of_the_api("as it is", "Ingress") == []
    (ingress,) = of_the_api("everything on", "Ingress")
    assert (ingress["spec"]["rules"][0]["host"], ingress["spec"]["tls"][0]["secretName"]) == ("api.example", "cert")
