"""Which hosts the operator and the gateway dial for jobs' stores, and at which address.

Whoever makes a job names its store, and these processes stand where that person does not: without a rule they would
knock at any door for anybody. What is checked is the address that is dialled, so that a name which leads elsewhere a
moment later changes nothing.
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
"""Reason of the error."""
SOCKETS = "unix"
"""In the list of allowed hosts: sockets of the process' own machine; for development."""

IPAddress = IPv4Address | IPv6Address
Answer = tuple[str, Sequence[str]]
"""What a name leads to: its canonical name ("" if that is not known), and addresses."""
Resolve = Callable[[str, int], Awaitable[Answer]]
Dialler = Callable[[str, int], Awaitable[tuple[str, ...]]]
"""The addresses to dial for a host and a port, at least one. Raises StoreForbiddenError and OSError."""
MOST_ADDRESSES = 4
"""Of one name, that are tried for one connection."""
_HOST = re.compile(r"([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}|[0-9a-f]*:[0-9a-f:.]*(%[a-z0-9_.-]+)?")
"""What is judged is what is resolved: a resolver may stop at other characters, of names too long Python makes none."""


async def resolve_name(host: str, port: int) -> Answer:
    """Asks the system's resolver. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_CANONNAME)
    return found[0][3], [str(entry[4][0]) for entry in found]


@dataclass(frozen=True, slots=True)
class StoreHosts:
    """Services of a job's own namespace, and what is listed.

    `allowed`: names, *.suffixes and networks. `never`: addresses that no name may lead to, beside loopback, link-local
    and multicast ones; a listed network may hold them. `domain`: the cluster's. `resolve`: what names lead to.
    """

    allowed: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    domain: str = "cluster.local"
    resolve: Resolve = resolve_name

    def check_url(self, namespace: str, url: str) -> None:
        """Raises StoreForbiddenError for a URL whose host is not dialled, whatever its name leads to, InputError for
        what is no URL."""
        parts = url_parts(url)
        if parts.scheme != SOCKETS:
            self._name_to_dial(namespace, parts.hostname or "")
        elif SOCKETS not in self.allowed:
            raise self._refusal(namespace, "a socket of this process' own machine")

    def dial(self, namespace: str) -> Dialler:
        """How to reach the stores of that namespace's jobs."""

        async def dial(host: str, port: int) -> tuple[str, ...]:
            name, is_service = self._name_to_dial(namespace, host)
            canonical, addresses = await self.resolve(name, port)
            # A service may be no more than another name for something elsewhere.
            if is_service and canonical and canonical.rstrip(".").lower() != name.rstrip("."):
                raise self._refusal(namespace, f"{host}, which stands for {canonical}")
            fit = tuple(address for address in dict.fromkeys(addresses) if self._is_fit(address))
            if not fit:
                raise self._refusal(namespace, f"{host}, which leads to {', '.join(addresses)}")
            return fit[:MOST_ADDRESSES]

        return dial

    def _name_to_dial(self, namespace: str, host: str) -> tuple[str, bool]:
        """The name to resolve, and whether it is a service of that namespace. Raises StoreForbiddenError.

        A name with a dot is whole: in the domains of a pod's search list somebody else may own one that begins with it.
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
        """NAME.NAMESPACE.svc.DOMAIN., where a host names a service of that namespace as pods there may write it. It is
        the whole name, so that one question is asked and not a dozen."""
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
        """Whether a listed network holds the address."""
        address = _address(text)
        networks = [ip_network(entry, strict=False) for entry in self.allowed if _is_network(entry)]
        return any(address in network for network in networks)

    def _refusal(self, namespace: str, found: str) -> StoreForbiddenError:
        listed = f", {', '.join(self.allowed)}" if self.allowed else ""
        return StoreForbiddenError(
            HOST_FORBIDDEN,
            f"the host of this job's store is not one that is dialled from outside of its namespace: found {found}, "
            f"allowed: services of namespace {namespace} (NAME.{namespace}.svc){listed}; an admin allows more with the "
            "chart's value stores.allowedHosts",
        )


def _address(text: str) -> IPAddress | None:
    """An address; the IPv4 one that an IPv6 one stands for."""
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
