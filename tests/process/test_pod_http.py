"""The web server of a pod, called over loopback."""

import http.client
import socket
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import pytest
from prometheus_client import CollectorRegistry, Gauge

from openseer_core.errors import InputError
from openseer_process import pod_http
from openseer_process.pod_http import MAX_OTHERS, MAX_REQUESTS, OtherAnswer, PodHttp


def get(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=60)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.fixture
def states() -> dict[str, bool]:
    return {"ready": False, "alive": True}


@pytest.fixture
def pod(states: dict[str, bool]) -> Generator[PodHttp]:
    registry = CollectorRegistry()
    Gauge("openseer_worker_slots", "Slots.", registry=registry).set(7)
    with PodHttp(0, ready=lambda: states["ready"], alive=lambda: states["alive"], registry=registry) as http_server:
        yield http_server


def test_a_probe_is_answered_with_the_present_state(pod: PodHttp, states: dict[str, bool]) -> None:
    assert (get(pod.port, "/healthz")[0], get(pod.port, "/readyz")[0]) == (200, 503)
    states.update(ready=True, alive=False)
    assert (get(pod.port, "/healthz?x=1")[0], get(pod.port, "/readyz")[0]) == (503, 200)


def test_metrics_are_the_registrys(pod: PodHttp) -> None:
    status, text = get(pod.port, "/metrics")
    assert status == 200
    assert "openseer_worker_slots 7.0" in text
    assert get(pod.port, "/")[0] == get(pod.port, "/metrics/x")[0] == 404


def test_without_a_registry_there_are_no_metrics() -> None:
    with PodHttp(0, ready=lambda: True, alive=lambda: True) as http_server:
        assert get(http_server.port, "/metrics")[0] == 404


def test_the_server_answers_over_ipv6_too(pod: PodHttp) -> None:
    try:
        socket.create_connection(("::1", pod.port)).close()
    except OSError as error:
        pytest.skip(f"no IPv6 on this machine: {error}")
    assert get(pod.port, "/healthz", "::1")[0] == 200


def test_silent_clients_take_a_bounded_number_of_threads(pod: PodHttp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_http, "REQUEST_SECONDS", 600.0)
    silent = [socket.create_connection(("127.0.0.1", pod.port)) for _ in range(MAX_REQUESTS)]
    with pytest.raises(ConnectionError):  # connections are accepted in their order
        get(pod.port, "/healthz")
    for connection in silent:
        connection.close()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            assert get(pod.port, "/healthz")[0] == 200
            return
        except ConnectionError:
            time.sleep(0.05)
    pytest.fail("the server did not answer again")


def test_a_client_that_sends_single_bytes_has_no_more_time(pod: PodHttp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_http, "REQUEST_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", pod.port)) as slow:
        slow.settimeout(0.05)
        slow.sendall(b"GET /healthz")
        for _ in range(1000):
            try:
                answer = slow.recv(1)
            except TimeoutError:
                slow.sendall(b"a")
            except ConnectionError:
                return
            else:
                assert answer == b""
                return
    pytest.fail("the connection is still open")


def test_other_requests_leave_threads_for_probes() -> None:
    begun, end = threading.Semaphore(0), threading.Event()

    def wait(path: str) -> OtherAnswer | None:
        begun.release()
        assert end.wait(60)
        return OtherAnswer(HTTPStatus.PARTIAL_CONTENT, b"x" * 10, {"Of": path}) if path == "/a?b=1" else None

    with (
        PodHttp(0, ready=lambda: True, alive=lambda: True, others=wait) as pod,
        ThreadPoolExecutor(MAX_OTHERS) as clients,
    ):
        waiting = [clients.submit(get, pod.port, path) for path in ["/a?b=1", *["/c"] * (MAX_OTHERS - 1)]]
        for _ in waiting:
            assert begun.acquire(timeout=60)
        assert [get(pod.port, "/a?b=1")[0] for _ in range(MAX_REQUESTS)] == [503] * MAX_REQUESTS
        assert get(pod.port, "/healthz")[0] == get(pod.port, "/readyz")[0] == 200
        end.set()
        answers = [answer.result() for answer in waiting]
        assert answers == [(206, "x" * 10), *[(404, "not found\n")] * (MAX_OTHERS - 1)]
        assert get(pod.port, "/a?b=1")[0] == 206


def test_a_port_that_is_in_use_is_an_input_error(pod: PodHttp) -> None:
    with pytest.raises(InputError, match=f"--http-port {pod.port}: Address already in use"):
        PodHttp(pod.port, ready=lambda: True, alive=lambda: True)


def test_a_restarted_process_gets_its_port_at_once() -> None:
    with (
        PodHttp(0, ready=lambda: True, alive=lambda: True) as first,
        socket.create_connection(("127.0.0.1", first.port), timeout=60) as client,
    ):
        client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        while client.recv(4096):
            pass  # until the server has closed: its side of the connection lingers
    with PodHttp(first.port, ready=lambda: True, alive=lambda: True) as second:
        assert get(second.port, "/healthz")[0] == 200
