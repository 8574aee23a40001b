"""Checks the hosts and addresses that the operator and the gateway may dial for jobs' stores.

The author of a job chooses its store's host, and these processes have network access that the author may not have:
without a rule a job could make them connect to any host (server-side request forgery). The check applies to the
address that is then dialled, so a DNS name that changes between check and connection has no effect.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from openseer_core.errors import StoreForbiddenError
from openseer_core.hosts import is_named
from openseer_core.manifest.store_url import url_parts

HOST_FORBIDDEN = "StoreHostForbidden"
"""Reason in the error for a host that must not be dialled."""
SOCKETS = "unix"
"""Entry in the list of allowed hosts that allows Unix sockets of this machine; for development."""

IPAddress = IPv4Address | IPv6Address
Answer = tuple[str, Sequence[str]]
"""The resolution of a name: its canonical name ("" if unknown), and its addresses."""
Resolve = Callable[[str, int], Awaitable[Answer]]
Dialler = Callable[[str, int], Awaitable[tuple[str, ...]]]
"""Returns the addresses to dial for a host and a port, at least one. Raises StoreForbiddenError and OSError."""
MOST_ADDRESSES = 4
"""Limit of a name's addresses that one connection tries."""
_HOST = re.compile(r"([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}|[0-9a-f]*:[0-9a-f:.]*(%[a-z0-9_.-]+)?")
"""Form of a host; all others are refused. A resolver may cut a name at other characters and resolve a name that was not
checked, and Python fails at longer names."""


async def resolve_name(host: str, port: int) -> Answer:
    """Resolves a name with the system's resolver. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_CANONNAME)
    return found[0][3], [str(entry[4][0]) for entry in found]


@dataclass(frozen=True, slots=True)
class StoreHosts:
    """Allows the services of a job's own namespace, and the listed hosts.

    `allowed`: names, *.suffixes and networks. `never`: forbidden addresses, in addition to loopback, link-local,
    multicast and unspecified addresses; an address in a network of `allowed` is not forbidden. `domain`: the cluster's
    DNS domain. `resolve`: the resolver.
    """

    allowed: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    domain: str = "cluster.local"
    resolve: Resolve = resolve_name

    def check_url(self, namespace: str, url: str) -> None:
        """Raises StoreForbiddenError if the URL's host is forbidden by name alone, InputError for an invalid URL."""
        parts = url_parts(url)
        if parts.scheme != SOCKETS:
            self._name_to_dial(namespace, parts.hostname or "")
        elif SOCKETS not in self.allowed:
            raise self._refusal(namespace, "a socket of this process' own machine")

    def dial(self, namespace: str) -> Dialler:
        """The function that resolves store hosts of jobs in `namespace` to allowed addresses."""

        async def dial(host: str, port: int) -> tuple[str, ...]:
            name, is_service = self._name_to_dial(namespace, host)
            canonical, addresses = await self.resolve(name, port)
            # A service of type ExternalName is an alias of any other name.
            if is_service and canonical and canonical.rstrip(".").lower() != name.rstrip("."):
                raise self._refusal(namespace, f"{host}, which stands for {canonical}")
            fit = tuple(address for address in dict.fromkeys(addresses) if self._is_fit(address))
            if not fit:
                raise self._refusal(namespace, f"{host}, which leads to {', '.join(addresses)}")
            return fit[:MOST_ADDRESSES]

        return dial

    def _name_to_dial(self, namespace: str, host: str) -> tuple[str, bool]:
        """The name to resolve, and whether it is a service of `namespace`. Raises StoreForbiddenError.

        A name with a dot is made absolute. Otherwise the resolver could append a domain of the pod's search list, and
        the longer name may belong to another owner.
        """
        name = host.rstrip(".").lower()
        if not _HOST.fullmatch(name):
            raise self._refusal(namespace, repr(host) if host else "no host")
        if _address(name) is not None:
            if self._is_listed(name):
                return name, False
        elif is_named(name, self.allowed):
            return (f"{name}." if "." in name else name), False
        elif (service := self._service(namespace, name)) is not None:
            return service, True
        raise self._refusal(namespace, host)

    def _service(self, namespace: str, name: str) -> str | None:
        """NAME.NAMESPACE.svc.DOMAIN. if the host names a service of `namespace`, in any form that pods may use; else
        None. The name is absolute, so the resolver sends one query, not one for each search domain."""
        labels = name.removesuffix(f".{self.domain}").removesuffix(".svc").split(".")
        if len(labels) == 1 and labels[0] == name:
            labels.append(namespace)
        is_its_own = len(labels) > 1 and all(labels) and labels[-1] == namespace
        return ".".join([*labels, "svc", self.domain, ""]) if is_its_own else None

    def _is_fit(self, text: str) -> bool:
        address = _address(text)
        if address is None:
            return False
        special = address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
        return self._is_listed(text) or not (special or address in map(_address, self.never))

    def _is_listed(self, text: str) -> bool:
        """Whether a listed network contains the address."""
        address = _address(text)
        networks = [ip_network(entry, strict=False) for entry in self.allowed if _is_network(entry)]
        return any(address in network for network in networks)

    def _refusal(self, namespace: str, found: str) -> StoreForbiddenError:
        listed = f", {', '.join(self.allowed)}" if self.allowed else ""
        return StoreForbiddenError(
            HOST_FORBIDDEN,
            f"the host of this job's store may not be dialled from outside its namespace: found {found}, "
            f"allowed: services of namespace {namespace} (NAME.{namespace}.svc){listed}; an admin allows more with the "
            "chart's value stores.allowedHosts",
        )


def _address(text: str) -> IPAddress | None:
    """The text's IP address, an IPv4-mapped IPv6 address as IPv4; None for a name."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True
