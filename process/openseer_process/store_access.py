"""Finds the URLs and addresses of jobs' stores, for the operator and the gateway of one installation.

The password of a managed Redis is derived from a key, so that they read no Secret for it. For any other store, a Role
in the job's namespace permits them to read one Secret.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from openseer_core.errors import InputError, StoreForbiddenError
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.store_url import (
    derived_password,
    managed_url,
    manages_store,
    url_in,
    url_reference,
)
from openseer_process.store_hosts import Dialler, StoreHosts

SECRET_FORBIDDEN = "StoreSecretForbidden"
"""Reason in the error for a Secret that openseer may not read."""
SHORTEST_KEY_BYTES = 32
LONGEST_KEY_BYTES = 1024
"""Limits of a key's length."""
MOST_KEYS = 64
"""Number of newest keys that are used: one for new jobs, and one per rotation since the oldest running job began."""
_RESOLVER = Path("/etc/resolv.conf")

ReadSecret = Callable[[str], Awaitable[Mapping[str, str]]]
"""Returns the data of the Secret of that name in the job's namespace, as in the Kubernetes API."""


@dataclass(frozen=True, slots=True)
class StoreAccess:
    """Keys and rules of one installation. `keys_folder`: has a file for each key, named by a number; the file with the
    highest number has the newest key, for new jobs. `hosts`: the allowed hosts; None: all. `readers`: ServiceAccounts
    of operator and gateway, as NAMESPACE:NAME."""

    keys_folder: Path
    hosts: StoreHosts | None = None
    readers: tuple[str, ...] = ()

    @staticmethod
    def read(environment: Mapping[str, str]) -> "StoreAccess":
        """Reads OPENSEER_* variables. Raises InputError, which names the variable that is missing or wrong."""

        def names(name: str) -> tuple[str, ...]:
            return tuple(filter(None, environment.get(name, "").split(",")))

        folder = environment.get("OPENSEER_STORE_KEYS", "")
        if not folder:
            raise InputError("OPENSEER_STORE_KEYS: missing; the chart sets it on its Deployments")
        never = tuple(filter(None, [environment.get("KUBERNETES_SERVICE_HOST", "")]))
        hosts = StoreHosts(names("OPENSEER_STORE_HOSTS"), never, cluster_domain())
        access = StoreAccess(Path(folder), hosts, names("OPENSEER_STORE_READERS"))
        access.keys()
        return access

    def keys(self) -> tuple[bytes, ...]:
        """The keys, newest first, read from disk at each call, so a rotation needs no restart. Raises InputError."""
        try:
            files = [path for path in self.keys_folder.iterdir() if path.name.isdecimal()]
            newest = sorted(files, key=lambda path: int(path.name), reverse=True)[:MOST_KEYS]
            keys = tuple(_key_in(path.read_bytes()) for path in newest)
        except OSError as error:
            raise InputError(f"OPENSEER_STORE_KEYS: {error}") from None
        if not keys:
            raise InputError(f"OPENSEER_STORE_KEYS: found no file in {self.keys_folder} that is named by a number")
        for path, key in zip(newest, keys, strict=True):
            if not SHORTEST_KEY_BYTES <= len(key) <= LONGEST_KEY_BYTES:
                limits = f"allowed: {SHORTEST_KEY_BYTES} to {LONGEST_KEY_BYTES} bytes"
                raise InputError(f"OPENSEER_STORE_KEYS: {path}: found {len(key)} bytes, {limits}")
        return keys

    async def url(self, job: RolloutJob, uid: str, secret: str, read: ReadSecret) -> str:
        """The URL of a job's store, checked against `hosts` before its name is resolved.

        `secret`: name of the Secret of a managed Redis. `read` is called if no key gives the password: for a user's
        Secret, and for a password that is random or derived from a deleted key. Raises InputError for a Secret without
        URL, StoreForbiddenError for a forbidden host, and the errors of `read`.
        """
        url = job.spec.store.url
        if url is None and manages_store(job):
            password = derived_password(job, uid, secret, self.keys())
            url = managed_url(job, password) if password is not None else None
        reference = url_reference(job, secret)
        if url is None and reference is not None:
            url = url_in(await read(reference.name), reference)
        if self.hosts is not None:
            self.hosts.check_url(job.namespace, url or "")
        return url or ""

    def dial(self, job: RolloutJob) -> Dialler | None:
        """The function that resolves the store's host to allowed addresses; None: all addresses are allowed."""
        return self.hosts.dial(job.namespace) if self.hosts is not None else None

    def secret_forbidden(self, namespace: str, name: str) -> StoreForbiddenError:
        """The error for a Secret that cannot be read, with the commands that allow it."""
        role, within = f"openseer-{name}", f"-n {namespace}"
        accounts = " ".join(f"--serviceaccount={reader}" for reader in self.readers)
        return StoreForbiddenError(
            SECRET_FORBIDDEN,
            f"Secret {name} with the URL of this job's store may not be read by openseer, though pods can read it; "
            f"allow it in namespace {namespace}: kubectl create role {role} {within} --verb=get --resource=secrets "
            f"--resource-name={name} && kubectl create rolebinding {role} {within} --role={role} {accounts}".rstrip(),
        )


def _key_in(data: bytes) -> bytes:
    """The key in a file's bytes, without a newline at the end, as an editor adds it."""
    return data[:-1] if data.endswith(b"\n") and len(data) != SHORTEST_KEY_BYTES else data


def cluster_domain(resolver: Path = _RESOLVER) -> str:
    """The cluster's DNS domain, from the pod's search list; cluster.local if the list has none."""
    try:
        lines = resolver.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    words = [word for line in lines if line.startswith("search") for word in line.split()[1:]]
    return next((word.removeprefix("svc.").rstrip(".") for word in words if word.startswith("svc.")), "cluster.local")
