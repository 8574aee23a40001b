"""Evaluates a NetworkPolicy as the API documents it, because the test cluster enforces none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Peer:
    """The other end of a connection: a pod, or with namespace "" an address outside of the cluster."""

    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    namespace_labels: Mapping[str, str] = field(default_factory=dict[str, str])
    address: str = "10.0.0.1"

    @property
    def of_its_namespace(self) -> Mapping[str, str]:
        """The labels of the peer's namespace; Kubernetes sets its name as one."""
        return {"kubernetes.io/metadata.name": self.namespace, **self.namespace_labels}


def selects(policy: Json, pod: Peer) -> bool:
    """Whether the policy selects this pod."""
    return pod.namespace == policy["metadata"]["namespace"] and _matches(policy["spec"]["podSelector"], pod.labels)


def lets_in(policy: Json, peer: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether the peer may connect to the selected pods."""
    return _allows(policy, "Ingress", "from", peer, port, protocol)


def lets_out(policy: Json, peer: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether the selected pods may connect to the peer."""
    return _allows(policy, "Egress", "to", peer, port, protocol)


def _allows(policy: Json, kind: str, side: str, peer: Peer, port: int, protocol: str) -> bool:
    spec = policy["spec"]
    if kind not in spec["policyTypes"]:
        return True
    for rule in spec.get(kind.lower(), ()):
        ports: Sequence[Json] = rule.get("ports") or ()
        fits_port = not ports or any(
            each.get("port", port) <= port <= each.get("endPort", each.get("port", port))
            and each.get("protocol", "TCP") == protocol
            for each in ports
        )
        peers: Sequence[Json] = rule.get(side) or ()
        if fits_port and (not peers or any(_is(policy, each, peer) for each in peers)):
            return True
    return False


def _is(policy: Json, described: Json, peer: Peer) -> bool:
    block = described.get("ipBlock")
    if block is not None:
        address = ip_address(peer.address)
        excepted = any(address in ip_network(each) for each in block.get("except", ()))
        return address in ip_network(block["cidr"]) and not excepted
    if not peer.namespace:
        return False
    namespaces = described.get("namespaceSelector")
    if namespaces is None:
        fits = peer.namespace == policy["metadata"]["namespace"]
    else:
        fits = _matches(namespaces, peer.of_its_namespace)
    return fits and _matches(described.get("podSelector") or {}, peer.labels)


def _matches(selector: Json, labels: Mapping[str, str]) -> bool:
    wanted: Mapping[str, str] = selector.get("matchLabels") or {}
    expressions: Sequence[Json] = selector.get("matchExpressions") or ()
    return wanted.items() <= labels.items() and all(_holds(each, labels) for each in expressions)


def _holds(expression: Json, labels: Mapping[str, str]) -> bool:
    found = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return found in expression["values"]
        case "NotIn":
            return found not in expression["values"]
        case operator:
            return (found is not None) == (operator == "Exists")
