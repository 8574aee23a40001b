"""The page's routes on a server of one job with scripted engines: access, views and streams."""

import pytest

from openseer_api.page import group_views, routes
from tests.api.page.watching import viewer
from tests.api.served import LONG, TOKEN, Served

JOB = "/jobs/default/served"
GROUPS = [{"id": f"q{index}", "prompt_token_ids": [1, 2, 3]} for index in range(3)]


@pytest.mark.parametrize("path", ["/jobs", JOB, f"{JOB}/batches/1", f"{JOB}/batches/1/group?name=q0"])
async def test_a_viewer_without_a_token_sees_nothing(path: str) -> None:
    async with Served() as served, viewer(served, None) as nobody:
        assert await nobody.status(path) == 401
        assert await nobody.login("a guess") == 401
        assert await nobody.status(path) == 401


@pytest.mark.parametrize("path", ["/jobs", JOB, f"{JOB}/batches/1"])
async def test_the_token_is_checked_before_the_calls_parameters(path: str) -> None:
    async with Served() as served, viewer(served, None) as person:

        async def refusals() -> list[int]:
            whole = f"/page/api{path}"
            calls = [
                person.http.request("GET", whole, json={"a": 1}),
                person.http.request("GET", whole, content=b"{", headers={"Content-Type": "text/plain"}),
                person.http.request("GET", whole, params={"unknown": 1}),
            ]
            return [(await call).status_code for call in calls]

        assert await refusals() == [401, 401, 401]
        assert await person.login(TOKEN) == 204
        assert await refusals() == [422, 415, 422]


async def test_a_token_in_the_header_does_not_open_the_page() -> None:
    async with Served() as served:
        assert (await served.http.get(f"/page/api{JOB}")).status_code == 401


async def test_the_cookie_opens_the_page_and_no_other_route() -> None:
    async with Served() as served, viewer(served) as person:
        assert await person.status(JOB) == 200
        assert (await person.http.get("/v1/job")).status_code == 401
        assert (await person.http.post("/v1/batches", json={})).status_code == 401


async def test_the_cookie_is_kept_from_scripts_and_other_sites() -> None:
    async with Served() as served, served.client(None) as http:
        answer = await http.post("/page/login", json={"token": TOKEN})
        attributes = {part.strip().lower() for part in answer.headers["set-cookie"].split(";")}
        assert {"httponly", "samesite=strict", "path=/page", "max-age=3600"} <= attributes
        assert TOKEN not in answer.headers["set-cookie"].split(";")[0].partition("=")[0]


@pytest.mark.parametrize("scheme", ["https", "http"])
async def test_the_cookie_of_a_page_by_https_is_never_sent_by_http(scheme: str) -> None:
    async with Served() as served, served.client(None) as http:
        headers = {"Origin": f"{scheme}://gateway.example"}
        answer = await http.post("/page/login", json={"token": TOKEN}, headers=headers)
        assert ("secure" in answer.headers["set-cookie"].lower()) == (scheme == "https")


@pytest.mark.parametrize("other", ["theme=dark", "seen", 'prefs={"dark":true}', "at=/x"])
async def test_other_cookies_of_the_host_do_not_hide_the_token(other: str) -> None:
    async with Served() as served, viewer(served) as person:
        (own,) = (f"{cookie.name}={cookie.value}" for cookie in person.http.cookies.jar)
        jar = {"Cookie": f"{other}; {own}"}
        async with served.client(None) as http, http.stream("GET", f"/page/api{JOB}", headers=jar) as answer:
            assert answer.status_code == 200


async def test_two_servers_of_one_machine_have_two_sessions() -> None:
    async with Served() as one, Served() as two, viewer(one) as person:
        assert (await person.http.post(f"{two.url}/page/login", json={"token": TOKEN})).status_code == 204
        assert (await person.http.post(f"{two.url}/page/logout")).status_code == 204
        assert await person.status(JOB) == 200


async def test_a_logged_out_viewer_sees_nothing() -> None:
    async with Served() as served, viewer(served) as person:
        assert (await person.http.post("/page/logout")).status_code == 204
        assert await person.status(JOB) == 401


async def test_a_server_of_one_job_shows_it_under_any_name() -> None:
    async with Served() as served, viewer(served) as person:
        served.start_worker()
        cards = await person.until("/jobs", lambda view: view["jobs"][0]["workers_ready"])
        assert [(card["namespace"], card["name"]) for card in cards["jobs"]] == [("default", "served")]


async def test_a_job_shows_its_workers_and_their_running_responses() -> None:
    async with Served(held=True) as served, viewer(served) as person:
        served.start_worker(0)
        served.start_worker(1)
        batch = await served.open(sampling=LONG)
        await served.upload(batch, GROUPS, seal=True)
        view = await person.until(JOB, lambda view: len(view["bars"]["lane"]) == 12)
        assert [lane["worker"] for lane in view["lanes"]] == ["worker-0", "worker-1"]
        assert set(view["bars"]["event"]) == {""}
        assert set(view["bars"]["end"]) == {None}
        pairs = set(zip(view["bars"]["lane"], view["bars"]["row"], strict=True))
        assert len(pairs) == 12
        assert view["card"]["reason"].startswith("the last 12 responses run")
        assert [one["id"] for one in view["batches"]] == [batch]


async def test_a_job_without_workers_reports_that() -> None:
    async with Served() as served, viewer(served) as person:
        view = await person.first(JOB)
        assert view["card"]["state"] == "waiting"
        assert view["card"]["reason"] == "no worker has started yet; wanted: 2"


async def test_an_idle_job_has_nothing_left_to_end() -> None:
    async with Served() as served, viewer(served) as person:
        served.start_worker()
        batch = await served.open()
        await served.upload(batch, GROUPS[:1], seal=True)
        await served.until_complete(batch)
        view = await person.until(JOB, lambda view: view["card"]["state"] == "idle")
        assert (view["card"]["progress"], view["card"]["eta_seconds"]) == (1.0, None)


async def test_a_worker_that_falls_silent_is_named() -> None:
    async with Served() as served, viewer(served) as person:
        worker = served.start_worker()
        await person.until(JOB, lambda view: view["card"]["workers_ready"])
        served.silence(worker)
        view = await person.until(JOB, lambda view: view["lanes"][0]["silent"] if view["lanes"] else False)
        assert view["card"]["reason"] == "no heartbeat from worker-0"


async def test_a_batch_shows_groups_lengths_and_estimates() -> None:
    async with Served() as served, viewer(served) as person:
        served.start_worker()
        batch = await served.open()
        await served.upload(batch, GROUPS, seal=True)
        view = await person.until(f"{JOB}/batches/{batch}", lambda view: view["batch"]["state"] == "complete")
        assert view["groups"]["name"] == ["q0", "q1", "q2"]
        assert view["groups"]["ok"] == view["groups"]["size"] == [4, 4, 4]
        assert sum(view["histogram"]["counts"]) == 12
        assert len(view["histogram"]["edges"]) == len(view["histogram"]["counts"]) + 1
        assert len(view["estimates"]) == len(view["lengths"]) == 9
        assert view["tail"] == []


async def test_the_tail_lists_running_responses_with_worker_and_progress() -> None:
    async with Served(held=True) as served, viewer(served) as person:
        served.start_worker()
        batch = await served.open(sampling=LONG)
        await served.upload(batch, GROUPS[:1], seal=True)
        view = await person.until(
            f"{JOB}/batches/{batch}", lambda view: len(view["tail"]) == 4 and all(one["tokens"] for one in view["tail"])
        )
        assert {one["worker"] for one in view["tail"]} == {"worker-0"}
        assert view["in_tail_since"] is not None
        assert view["groups"]["running"] == [4]


async def test_a_missing_batch_ends_the_stream_with_a_reason() -> None:
    async with Served() as served, viewer(served) as person:
        events = [event async for event in person.views(f"{JOB}/batches/7")]
        assert events == [("problem", {"status": 404, "detail": events[0][1]["detail"]})]
        assert "no batch 7" in events[0][1]["detail"]


async def test_a_groups_views_continue_where_the_last_one_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_views, "MOST_TOKENS", 4000)
    async with Served() as served, viewer(served) as person:
        served.start_worker()
        batch = await served.open(sampling={"maxTokens": 1500, "minTokens": 1500})
        await served.upload(batch, GROUPS[:1], seal=True)
        tokens: dict[int, list[int]] = {}
        starts: list[int] = []
        async for _, view in person.views(f"{JOB}/batches/{batch}/group?name=q0"):
            for response in view["responses"]:
                kept = tokens.get(response["index"], [])[: response["start"]]
                tokens[response["index"]] = kept + response["tokens"]
                starts.append(response["start"])
            if all(response["state"] == "ok" for response in view["responses"]):
                break
        assert any(starts)
        entries = [entry for entry in await served.until_complete(batch) if entry["kind"] == "result"]
        assert {entry["index"]: entry["token_ids"] for entry in entries} == tokens


async def test_one_response_may_be_watched_alone() -> None:
    async with Served() as served, viewer(served) as person:
        served.start_worker()
        batch = await served.open()
        await served.upload(batch, GROUPS[:1], seal=True)
        await served.until_complete(batch)
        view = await person.first(f"{JOB}/batches/{batch}/group?name=q0&index=2")
        assert [response["index"] for response in view["responses"]] == [2]
        assert view["responses"][0]["chunks"][0]["worker"].startswith("worker-0")


async def test_a_stream_ends_so_that_rights_are_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "STREAM_SECONDS", 0.2)
    async with Served() as served, viewer(served) as person:
        assert [kind async for kind, _ in person.views(JOB)][:1] == ["view"]


async def test_too_many_streams_are_refused_and_ended_ones_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "MOST_STREAMS", 1)
    async with Served() as served, viewer(served) as person:
        async for _ in person.views(JOB):
            assert await person.status(JOB) == 429
            break
        while await person.status(JOB) == 429:
            pass
