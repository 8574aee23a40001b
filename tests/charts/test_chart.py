"""The chart renders what it promises, for every way of installing it, and asks for no more rights than are used."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml

from openseer_operator.settings import OperatorSettings
from tests.charts.rendering import CHART, HELM, KUBERNETES, ROOT, VARIANTS, helm, template

pytestmark = pytest.mark.skipif(HELM is None, reason="no helm: neither on the path nor built by cluster/build.sh")


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
    return OperatorSettings.read(variables)


def refusal(values: dict[str, Any]) -> str:
    done = template(values)
    assert done.returncode != 0, "rendered"
    return done.stderr


def test_the_linter_finds_nothing() -> None:
    done = helm("lint", str(CHART), "--strict", "--kube-version", KUBERNETES)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_object_has_a_place_and_says_whose_it_is(variant: str) -> None:
    for entry in objects_of(variant):
        if entry["kind"] != "CustomResourceDefinition":
            assert entry["metadata"]["labels"]["app.kubernetes.io/instance"] == "rel"
        if not entry["kind"].startswith(("Cluster", "Custom")):
            assert entry["metadata"]["namespace"]
    names = [
        (entry["kind"], entry["metadata"].get("namespace"), entry["metadata"]["name"]) for entry in objects_of(variant)
    ]
    assert len(names) == len(set(names))


def test_what_is_switched_off_is_not_there() -> None:
    assert {entry["kind"] for entry in objects_of("everything off")} == {"Deployment"}


def test_what_is_switched_on_is_there() -> None:
    kinds = {entry["kind"] for entry in objects_of("everything on")}
    assert {"ServiceMonitor", "Service", "NetworkPolicy", "PodDisruptionBudget"} <= kinds
    assert "ServiceMonitor" not in {entry["kind"] for entry in objects_of("as it is")}


def test_the_crd_is_the_projects_own_and_stays_when_the_chart_goes() -> None:
    (found,) = of_kind("as it is", "CustomResourceDefinition")
    assert found["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert found == yaml.safe_load((ROOT / "crds" / "rolloutjobs.yaml").read_text(encoding="utf-8"))


def test_a_crd_that_need_not_stay_is_the_very_file() -> None:
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


def test_the_operator_understands_the_environment_that_it_is_given() -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["appVersion"]
    plain, full = settings("as it is"), settings("everything on")
    assert plain.worker_image == f"openseer-worker:{version}"
    assert plain.store_image == f"openseer-operator:{version}" == pod("as it is")["containers"][0]["image"]
    assert (plain.watched, plain.node_condition, plain.network_policies) == ((), "", True)
    assert (full.store_image, full.node_condition) == ("valkey:8", "AcceleratedHardwareReady")
    assert settings("namespaced").watched == ("lab", "prod")
    assert plain.lease == "rel-openseer"


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_rule_has_a_wildcard(variant: str) -> None:
    for _, name, rule in rules(variant):
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]], name


def test_the_operator_may_read_secrets_by_name_but_not_list_them() -> None:
    verbs = {name: rule["verbs"] for _, name, rule in rules("as it is") if "secrets" in rule["resources"]}
    assert verbs == {"rel-openseer": ["get", "create"], "rel-openseer-api": ["get"]}


def test_nodes_are_touched_only_where_a_condition_is_wanted() -> None:
    def on_nodes(variant: str) -> list[list[str]]:
        return [rule["verbs"] for _, _, rule in rules(variant) if "nodes/status" in rule["resources"]]

    assert (on_nodes("as it is"), on_nodes("everything on")) == ([], [["patch"]])


def test_a_namespaced_operator_has_no_rights_beyond_its_namespaces_and_the_api_only_asks_for_reviews() -> None:
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
def test_every_role_is_bound_to_the_account_that_it_is_for(variant: str) -> None:
    bindings = of_kind(variant, "RoleBinding", "ClusterRoleBinding")
    for entry in bindings:
        spec = api(variant) if "-api" in entry["roleRef"]["name"] else pod(variant)
        (subject,) = entry["subjects"]
        assert (subject["name"], subject["namespace"]) == (spec["serviceAccountName"], "system")
    bound = {(entry["metadata"].get("namespace", ""), entry["roleRef"]["name"]) for entry in bindings}
    users = ("rel-openseer-view", "rel-openseer-edit")
    assert bound == {(namespace, name) for namespace, name, _ in rules(variant) if name not in users}


def test_the_lease_that_may_be_written_is_the_one_that_is_used() -> None:
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
    assert verbs == asks | {("rolloutjobs", "get"), ("rolloutjobs", "list"), ("secrets", "get")}


def test_whoever_edits_reads_and_writes_batches_and_whoever_views_does_not() -> None:
    found = {name: rule["verbs"] for _, name, rule in rules("as it is") if "rolloutjobs/batches" in rule["resources"]}
    assert found == {"rel-openseer-edit": ["get", "update"]}


def test_the_api_runs_from_the_operators_image_with_what_it_is_told() -> None:
    (plain,), (full,) = api("as it is")["containers"], api("everything on")["containers"]
    assert plain["image"] == pod("as it is")["containers"][0]["image"]
    assert plain["command"] == ["python", "-m", "openseer_api.main"]
    variables = {entry["name"]: entry["value"] for entry in full["env"]}
    assert (variables["OPENSEER_API_AUDIENCES"], variables["HF_HUB_OFFLINE"]) == ("openseer,other", "1")
    assert [entry["mountPath"] for entry in full["volumeMounts"]] == ["/tmp", "/models"]
    (named,) = api("namespaced")["containers"]
    assert {"name": "OPENSEER_WATCH_NAMESPACES", "value": "lab,prod"} in named["env"]


def test_the_api_is_found_under_a_name_and_reached_by_whom_the_policy_lets_in() -> None:
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
    assert policy["spec"]["ingress"] == [{"ports": [{"protocol": "TCP", "port": 8080}], "from": [{"podSelector": {}}]}]
    assert of_the_api("as it is", "Ingress") == []
    (ingress,) = of_the_api("everything on", "Ingress")
    assert (ingress["spec"]["rules"][0]["host"], ingress["spec"]["tls"][0]["secretName"]) == ("api.example", "cert")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"api": {"audiences": ["a,b"]}}, "audiences"),
        ({"api": {"ingress": {"enabled": True}}}, "api.ingress.host: missing; name the host"),
        ({"api": {"serviceAccount": {"create": False}}}, "api.serviceAccount.name: name the account to use"),
        ({"replica": 3}, "replica"),
        ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
        ({"watchNamespaces": "lab"}, "watchNamespaces"),
        (
            {"redisImage": {"repository": "valkey"}},
            "redisImage.tag: missing; name the tag of redisImage.repository",
        ),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name: name the account to use"),
        (
            {"metrics": {"service": False, "serviceMonitor": {"enabled": True}}},
            "metrics.serviceMonitor.enabled: needs metrics.service",
        ),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(values: dict[str, Any], expected: str) -> None:
    assert expected in refusal(values)
