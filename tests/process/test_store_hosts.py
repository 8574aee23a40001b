"""The hosts that are dialled for jobs' stores: the resolved address itself is checked, for any name."""

from urllib.parse import quote

import pytest

from openseer_core.errors import InputError, StoreForbiddenError
from openseer_process.store_hosts import Answer, StoreHosts

API_SERVER = "10.96.0.1"
NAMES: dict[str, Answer] = {
    "redis.lab.svc.cluster.local.": ("redis.lab.svc.cluster.local", ["10.96.3.4"]),
    "pod-0.redis.lab.svc.cluster.local.": ("", ["10.1.2.3"]),
    "alias.lab.svc.cluster.local.": ("kubernetes.default.svc.cluster.local", [API_SERVER]),
    "elsewhere.lab.svc.cluster.local.": ("redis.other.svc.cluster.local", ["10.96.9.9"]),
    "trap.lab.svc.cluster.local.": ("trap.lab.svc.evil.example", ["10.96.9.9"]),
    "headless.lab.svc.cluster.local.": ("headless.lab.svc.cluster.local", [API_SERVER]),
    "cache.example.": ("node.cache.example", ["203.0.113.9"]),
    "a.pool.example.": ("", ["127.0.0.1", "203.0.113.5"]),
    "bad.example.": ("", ["::ffff:127.0.0.1"]),
    "local.example.": ("", ["127.0.0.1"]),
    "mapped.example.": ("", [f"::ffff:{API_SERVER}"]),
    "metadata.example.": ("", ["169.254.169.254", "fe80::1%eth0"]),
    "any.example.": ("", ["0.0.0.0", "::", "224.0.0.1"]),
    "10.20.0.5": ("", ["10.20.0.5"]),
    "fd00::5": ("", ["fd00::5"]),
}
LISTED = ("cache.example", "*.pool.example", "bad.example", "local.example", "mapped.example", "metadata.example")


async def resolve(host: str, port: int) -> Answer:
    return NAMES[host]


def hosts(*allowed: str) -> StoreHosts:
    return StoreHosts(allowed, (API_SERVER,), resolve=resolve)


async def address(host: str, *allowed: str) -> str:
    return (await hosts(*allowed).dial("lab")(host, 6379))[0]


@pytest.mark.parametrize(
    "host", ["redis", "redis.lab", "redis.lab.svc", "Redis.LAB.svc.", "redis.lab.svc.cluster.local"]
)
async def test_a_service_of_the_jobs_namespace_is_dialled_by_any_of_its_names(host: str) -> None:
    assert await address(host) == "10.96.3.4"
    hosts().check_url("lab", f"redis://:p@{host}:6379/0")


async def test_a_pod_behind_a_service_of_the_namespace_is_dialled() -> None:
    assert await address("pod-0.redis.lab.svc") == "10.1.2.3"


@pytest.mark.parametrize(
    "host",
    [
        *(
            "redis.other.svc",
            "kubernetes.default.svc",
            "kubernetes.default",
            "redis.lab.svc.evil.example",
            "lab.svc",
            "lab",
        ),
        *("cache.example", "pool.example", "localhost.localdomain", "10.20.0.5", "127.0.0.1", "169.254.169.254", "::1"),
        *("2130706433.example", "svc", ".lab.svc", ""),
    ],
)
async def test_other_hosts_are_refused_before_their_names_are_resolved(host: str) -> None:
    async def nobody(_host: str, _port: int) -> Answer:
        raise AssertionError

    guard = StoreHosts(domain="cluster.local", resolve=nobody)
    if host not in ("lab", "svc"):  # names of services, as a pod of that namespace may write them
        with pytest.raises(
            StoreForbiddenError, match=r"allowed: services of namespace lab \(NAME\.lab\.svc\); an admin"
        ):
            await guard.dial("lab")(host, 6379)
        url = f"redis://[{host}]:6379" if ":" in host else f"redis://{host}:6379"
        with pytest.raises(StoreForbiddenError):
            guard.check_url("lab", url)


@pytest.mark.parametrize("host", ["alias", "elsewhere", "trap"])
async def test_a_service_that_is_an_alias_of_another_name_is_refused(host: str) -> None:
    canonical = NAMES[f"{host}.lab.svc.cluster.local."][0]
    with pytest.raises(StoreForbiddenError, match=f"found {host}, which stands for {canonical}"):
        await address(host)


@pytest.mark.parametrize(
    "host", ["headless.lab.svc", "bad.example", "local.example", "mapped.example", "metadata.example"]
)
async def test_no_name_may_lead_to_the_api_server_or_a_local_address(host: str) -> None:
    with pytest.raises(StoreForbiddenError, match=f"found {host}, which leads to"):
        await address(host, *LISTED)


async def test_unspecified_and_multicast_addresses_are_refused() -> None:
    with pytest.raises(StoreForbiddenError, match=r"any\.example, which leads to 0\.0\.0\.0, ::, 224\.0\.0\.1"):
        await address("any.example", "*.example")


async def test_listed_hosts_and_networks_are_dialled() -> None:
    assert await address("cache.example", *LISTED) == "203.0.113.9"
    assert await address("a.pool.example", *LISTED) == "203.0.113.5"
    assert await address("10.20.0.5", "10.20.0.0/16") == "10.20.0.5"
    assert await address("fd00::5", "fd00::/8") == "fd00::5"
    assert await address("local.example", "local.example", "127.0.0.0/8") == "127.0.0.1"


@pytest.mark.parametrize(
    "host", ["0xa.0.0.5\0.pool.example", "localhost\0.pool.example", "10.20.0.5%\0.pool.example", "a b.pool.example"]
)
async def test_a_host_that_a_resolver_may_read_differently_is_refused(host: str) -> None:
    async def nobody(_host: str, _port: int) -> Answer:
        raise AssertionError

    guard = StoreHosts((*LISTED, "10.20.0.0/16"), (API_SERVER,), resolve=nobody)
    with pytest.raises(StoreForbiddenError, match="found '"):
        await guard.dial("lab")(host, 6379)
    with pytest.raises(StoreForbiddenError):
        guard.check_url("lab", f"redis://{quote(host)}:6379/0")


@pytest.mark.parametrize("host", [".pool.example", f"{64 * 'a'}.pool.example"])
async def test_a_name_that_python_cannot_resolve_is_refused(host: str) -> None:
    with pytest.raises(StoreForbiddenError, match="found '"):
        await StoreHosts(LISTED).dial("lab")(host, 6379)


def test_an_invalid_url_is_an_input_error() -> None:
    with pytest.raises(InputError, match="store URL: no URL of a Redis"):
        hosts().check_url("lab", "redis://[x/0")


def test_a_part_that_may_be_a_password_is_not_shown_as_a_host() -> None:
    for url in ("redis://S3cret/x@redis:6379/0", "redis://:S3cret#x@redis:6379/0"):
        with pytest.raises(InputError, match="must be percent-encoded") as caught:
            hosts().check_url("lab", url)
        assert "s3cret" not in str(caught.value).lower()


@pytest.mark.parametrize("host", ["cache.example", "Cache.Example."])
async def test_a_listed_name_with_a_dot_is_resolved_as_an_absolute_one(host: str) -> None:
    asked: list[str] = []

    async def note(name: str, _port: int) -> Answer:
        asked.append(name)
        return "", ["203.0.113.9"]

    dial = StoreHosts(("cache.example", "intranet"), resolve=note).dial("lab")
    for name in (host, "intranet"):
        await dial(name, 6379)
    assert asked == ["cache.example.", "intranet"]


async def test_allowed_addresses_of_a_name_are_returned_up_to_four() -> None:
    many = ["127.0.0.1", "203.0.113.1", *(f"203.0.113.{number}" for number in range(1, 9))]

    async def answer(_host: str, _port: int) -> Answer:
        return "", many

    dial = StoreHosts(("cache.example",), (API_SERVER,), resolve=answer).dial("lab")
    assert await dial("cache.example", 6379) == tuple(f"203.0.113.{number}" for number in range(1, 5))


async def test_a_name_is_checked_again_at_each_connection() -> None:
    answers = [("", ["203.0.113.9"]), ("", [API_SERVER])]

    async def rebind(_host: str, _port: int) -> Answer:
        return answers.pop(0)

    dial = StoreHosts(("cache.example",), (API_SERVER,), resolve=rebind).dial("lab")
    assert await dial("cache.example", 6379) == ("203.0.113.9",)
    with pytest.raises(StoreForbiddenError):
        await dial("cache.example", 6379)


def test_sockets_of_the_own_machine_are_refused_unless_listed() -> None:
    with pytest.raises(StoreForbiddenError, match="found a socket of this process' own machine"):
        hosts().check_url("lab", "unix:///run/redis.sock")
    hosts("unix").check_url("lab", "unix:///run/redis.sock")
