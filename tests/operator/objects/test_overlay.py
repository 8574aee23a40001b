"""A user's pod template is merged over ours, except for fields that the operator depends on."""

import copy
from typing import Any

import pytest

from openseer_core.errors import InputError
from openseer_operator.objects.overlay import overlay_template

OURS: dict[str, Any] = {
    "metadata": {"name": "j-worker-0", "labels": {"openseer.dev/job": "j"}, "annotations": {"drain": "yes"}},
    "spec": {
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532},
        "tolerations": [{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute", "tolerationSeconds": 30}],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],
        "containers": [
            {
                "name": "worker",
                "image": "openseer-worker:1",
                "env": [{"name": "HOME", "value": "/tmp"}, {"name": "USER", "value": "openseer"}],
                "resources": {"limits": {"nvidia.com/gpu": "1"}},
                "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
            }
        ],
    },
}


def over(template: dict[str, Any], **owned: dict[str, str]) -> dict[str, Any]:
    return overlay_template(OURS, template, path="spec.workers.template", main="worker", **owned)


def spec_over(**spec: Any) -> dict[str, Any]:
    return over({"spec": spec})["spec"]


def refusal(template: dict[str, Any], **owned: dict[str, str]) -> str:
    with pytest.raises(InputError) as caught:
        over(template, **owned)
    return str(caught.value)


def test_an_empty_template_changes_nothing() -> None:
    assert over({}) == OURS
    assert over({"metadata": None, "spec": None}) == OURS


def test_neither_side_is_changed_by_the_merge() -> None:
    before = copy.deepcopy(OURS)
    template = {"spec": {"containers": [{"name": "worker", "env": [{"name": "HOME", "value": "/home"}]}]}}
    kept = copy.deepcopy(template)
    over(template)
    assert (before, kept) == (OURS, template)


def test_maps_are_merged_and_null_changes_nothing() -> None:
    found = spec_over(securityContext={"runAsUser": 7, "runAsNonRoot": None}, nodeSelector={"gpu": "h200"})
    assert found["securityContext"] == {"runAsNonRoot": True, "runAsUser": 7}
    assert found["nodeSelector"] == {"gpu": "h200"}
    assert found["restartPolicy"] == "Never"


def test_openseers_container_is_merged_by_name_and_others_are_added() -> None:
    sidecar = {"name": "logs", "image": "fluent-bit:3"}
    container = {"name": "worker", "resources": {"requests": {"cpu": "2"}}, "lifecycle": {}}
    found = spec_over(containers=[sidecar, container])["containers"]
    assert [entry["name"] for entry in found] == ["worker", "logs"]
    assert found[0]["image"] == "openseer-worker:1"
    assert found[0]["resources"] == {"limits": {"nvidia.com/gpu": "1"}, "requests": {"cpu": "2"}}
    assert found[1] == sidecar


def test_list_entries_of_the_same_key_replace_ours_and_others_are_added() -> None:
    variable = {"name": "HOME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    mount = {"name": "scratch", "mountPath": "/scratch"}
    found = spec_over(
        volumes=[{"name": "shm", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "scratch", "emptyDir": {}}],
        containers=[{"name": "worker", "env": [variable, {"name": "A", "value": "b"}], "volumeMounts": [mount]}],
    )
    container = found["containers"][0]
    assert found["volumes"] == [
        {"name": "shm", "persistentVolumeClaim": {"claimName": "c"}},
        {"name": "scratch", "emptyDir": {}},
    ]
    assert container["env"] == [variable, {"name": "USER", "value": "openseer"}, {"name": "A", "value": "b"}]
    assert [entry["mountPath"] for entry in container["volumeMounts"]] == ["/dev/shm", "/scratch"]


def test_a_toleration_of_the_same_taint_replaces_ours() -> None:
    longer = {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute", "tolerationSeconds": 300}
    other = {"key": "team", "operator": "Exists"}
    assert spec_over(tolerations=[other, longer])["tolerations"] == [longer, other]


def test_labels_and_annotations_of_the_users_own_are_added() -> None:
    metadata = over({"metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}}})["metadata"]
    assert metadata["labels"] == {"openseer.dev/job": "j", "team": "a"}
    assert metadata["annotations"] == {"drain": "yes", "note": "b"}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ({"metadata": {"name": "x"}}, "spec.workers.template.metadata.name: cannot be set here, allowed: labels and"),
        ({"metadata": {"labels": {"openseer.dev/new": "k"}}}, "template.metadata.labels.openseer.dev/new: cannot"),
        ({"metadata": {"annotations": {"drain": "no"}}}, "template.metadata.annotations.drain: cannot be set here"),
        ({"spec": {"restartPolicy": "Always"}}, "template.spec.restartPolicy: cannot be set here; the operator counts"),
        ({"spec": {"hostname": "h"}}, "template.spec.hostname: cannot be set here"),
        ({"spec": {"subdomain": "s"}}, "template.spec.subdomain: cannot be set here"),
        (
            {"spec": {"containers": [{"name": "worker", "restartPolicy": "Always"}]}},
            "template.spec.containers[0].restartPolicy: cannot be set here; the operator counts",
        ),
        (
            {"spec": {"containers": [{"name": "a"}, {"name": "worker", "command": ["sh"]}]}},
            "spec.workers.template.spec.containers[1].command: cannot be set here",
        ),
        (
            {"spec": {"containers": [{"name": "worker", "env": [{"name": "OPENSEER_STORE_URL", "value": "x"}]}]}},
            "containers[0].env: OPENSEER_STORE_URL cannot be set here",
        ),
        ({"spec": {"containers": [{"image": "x"}]}}, "template.spec.containers[0].name: missing; name the container"),
        ({"spec": {"containers": {"name": "x"}}}, "template.spec.containers: found {'name': 'x'}, allowed: a list"),
        ({"spec": {"securityContext": 3}}, "template.spec.securityContext: found 3, allowed: a map"),
        ({"spec": {"volumes": ["shm"]}}, "template.spec.volumes[0]: found 'shm', allowed: a map"),
        ({"replicas": 3}, "spec.workers.template.replicas: cannot be set here, allowed: metadata and spec"),
    ],
)
def test_fields_that_the_operator_depends_on_are_refused_by_path(template: dict[str, Any], expected: str) -> None:
    assert expected in refusal(template)


def test_fields_owned_by_a_pod_are_refused_with_their_own_reason() -> None:
    template = {"spec": {"containers": [{"name": "worker", "image": "mine"}]}}
    assert over(template)["spec"]["containers"][0]["image"] == "mine"
    assert refusal(template, owned_container_fields={"image": "set spec.image"}).endswith(
        "spec.containers[0].image: cannot be set here; set spec.image"
    )
