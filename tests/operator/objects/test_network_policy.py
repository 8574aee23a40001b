"""Connections from and to the pods of a job, by evaluation of the policies' selectors."""

from typing import Any

import pytest

from tests.operator.objects.network_policy import Peer, lets_in, lets_out, selects
from tests.operator.objects.test_shared import job, shared

REDIS, HTTP = 6379, 8080
WORKER = Peer("lab", {"openseer.dev/job": "arithmetic", "openseer.dev/role": "worker"})
PROMETHEUS = Peer("monitoring", {"app.kubernetes.io/name": "prometheus"}, {"team": "platform"})
STRANGERS = {
    "another job": Peer("lab", {"openseer.dev/job": "other"}),
    "a pod of the namespace": Peer("lab"),
    "a job of that name elsewhere": Peer("prod", WORKER.labels),
    "prometheus' neighbour": Peer("monitoring", {"app": "grafana"}),
    "a pod that calls itself prometheus": Peer("prod", PROMETHEUS.labels),
    "the internet": Peer(address="203.0.113.7"),
}
BY_NAMESPACE = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
BY_POD = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}}
BY_EXPRESSION = {"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["platform"]}]}}


MOONCAKE = {"backend": "mooncake", "maxGigabytes": 8}
POOL_PORTS = (29600, 29601, 29602, 15428)
"""Of master, metrics and store, and one that Mooncake chose for the blocks."""
OWN = {role: Peer("lab", {"openseer.dev/job": "arithmetic", "openseer.dev/role": role}) for role in ("driver", "redis")}


def policies_of(pod: Peer, **settings: Any) -> list[dict[str, Any]]:
    """The policies that select a pod of a job with a pool; their permissions add up."""
    made = shared(job(kvPool=MOONCAKE), **settings).values()
    return [each for each in made if each["kind"] == "NetworkPolicy" and selects(each, pod)]


def pool_pod(**settings: Any) -> Peer:
    template = shared(job(kvPool=MOONCAKE), **settings)["kvPool"]["spec"]["template"]
    return Peer("lab", template["metadata"]["labels"])


def policy(**settings: Any) -> dict[str, Any]:
    return shared(job(), **settings)["networkPolicy"]


@pytest.mark.parametrize("who", STRANGERS)
@pytest.mark.parametrize("port", [REDIS, HTTP, 29500])
def test_foreign_pods_reach_no_pod_of_a_job(who: str, port: int) -> None:
    scraped = policy(metrics_from=({**BY_NAMESPACE, **BY_POD},))
    assert selects(scraped, WORKER)
    assert not lets_in(scraped, STRANGERS[who], port)


@pytest.mark.parametrize(
    "scraper", [{**BY_NAMESPACE, **BY_POD}, BY_NAMESPACE, BY_EXPRESSION, {"ipBlock": {"cidr": "10.0.0.0/24"}}]
)
def test_permitted_scrapers_reach_only_metrics(scraper: dict[str, Any]) -> None:
    found = policy(metrics_from=(scraper,))
    reached = [port for port in (REDIS, HTTP, 29500) if lets_in(found, PROMETHEUS, port)]
    assert reached == [HTTP]
    assert not lets_in(policy(), PROMETHEUS, HTTP)


@pytest.mark.parametrize("settings", [{}, {"metrics_from": (BY_NAMESPACE,)}, {"egress": ()}])
def test_the_job_and_the_operators_namespace_are_always_admitted(settings: dict[str, Any]) -> None:
    found = policy(**settings)
    assert all(lets_in(found, WORKER, port) for port in (REDIS, HTTP, 29500, 40000))
    assert [port for port in (REDIS, HTTP, 29500) if lets_in(found, Peer("openseer"), port)] == [REDIS, HTTP]


def test_pods_reach_everything_unless_the_installation_restricts_them() -> None:
    assert policy()["spec"]["policyTypes"] == ["Ingress"]
    assert all(lets_out(policy(), peer, 443) for peer in STRANGERS.values())


def test_restricted_pods_reach_each_other_dns_and_listed_addresses() -> None:
    hub = {"to": [{"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.8/32"]}}], "ports": [{"port": 443}]}
    closed, opened = policy(egress=()), policy(egress=(hub,))
    for found in (closed, opened):
        assert found["spec"]["policyTypes"] == ["Ingress", "Egress"]
        assert all(lets_out(found, WORKER, port) for port in (REDIS, HTTP, 29500, 40000))
        # 5353: the port of OpenShift's DNS pods behind their service.
        dns = [(port, protocol) for port in (53, 5353) for protocol in ("UDP", "TCP")]
        assert all(lets_out(found, Peer("kube-system"), *each) for each in dns)
        assert not any(lets_out(found, peer, 80) for peer in STRANGERS.values())
        assert not lets_out(found, Peer(address="169.254.169.254"), 80)
    assert not lets_out(closed, STRANGERS["the internet"], 443)
    assert lets_out(opened, STRANGERS["the internet"], 443)
    assert not lets_out(opened, Peer(address="203.0.113.8"), 443)


RESTRICTED = {"egress": ({"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]},)}


@pytest.mark.parametrize("settings", [{}, {"metrics_from": (BY_NAMESPACE,)}, RESTRICTED])
def test_the_jobs_workers_alone_reach_the_pod_of_its_pool(settings: dict[str, Any]) -> None:
    [found] = policies_of(pool_pod(), **settings)
    assert all(lets_in(found, WORKER, port) for port in POOL_PORTS)
    others = [*STRANGERS.values(), *OWN.values(), PROMETHEUS, Peer("openseer")]
    assert not any(lets_in(found, peer, port) for peer in others for port in (*POOL_PORTS, HTTP, REDIS))


@pytest.mark.parametrize("settings", [{}, RESTRICTED])
def test_the_pod_of_a_pool_opens_no_connection(settings: dict[str, Any]) -> None:
    [found] = policies_of(pool_pod(), **settings)
    asked = [*STRANGERS.values(), *OWN.values(), WORKER, Peer("kube-system"), Peer(address="169.254.169.254")]
    assert not any(lets_out(found, peer, port) for peer in asked for port in (53, 443, HTTP, REDIS, *POOL_PORTS))


@pytest.mark.parametrize("settings", [{}, {"egress": ()}])
def test_workers_reach_the_pod_of_their_pool(settings: dict[str, Any]) -> None:
    found = policies_of(WORKER, **settings)
    assert len(found) == 1
    assert all(lets_out(found[0], pool_pod(), port) for port in POOL_PORTS)


def test_an_installation_without_policies_makes_none_for_a_pool() -> None:
    assert policies_of(pool_pod(), network_policies=False) == []
