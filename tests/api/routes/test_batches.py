"""A trainer's calls for batches over HTTP, with workers on scripted engines."""

import asyncio
from typing import Any

from openseer_api.job.context import UploadLimits
from openseer_core.ids import GroupId, WorkerId
from openseer_core.queue.siblings import prompt_digest
from tests.api.served import LONG, Served, ends, prompts, results, served, serving_job
from tests.store.builders import finish, query


async def test_a_batch_runs_to_its_end_and_is_acknowledged() -> None:
    async with served() as server:
        batch = await server.open(metadata={"step": 3})
        assert await server.upload(batch, prompts(5, metadata={"answer": "é"}), seal=True) == {
            "accepted": 5,
            "present": 0,
        }
        items = await server.until_complete(batch)
        assert len(results(items)) == 20
        assert [item["cursor"] for item in items] == list(range(1, 26))
        first = results(items)[0]
        assert first["status"] == "ok"
        assert first["metadata"] == {"answer": "é"}
        assert len(first["logprobs"]) == len(first["token_ids"]) > 0
        assert first["versions"] == [{"version": "initial", "start": 0, "end": len(first["token_ids"])}]
        assert first["sampled"] == [[0, len(first["token_ids"])]]
        assert {item["group"] for item in ends(items) if item["whole"]} == {f"g{number}" for number in range(5)}
        shown = await server.call("GET", f"/batches/{batch}")
        assert (shown["state"], shown["progress"], shown["last_cursor"]) == ("complete", 1.0, 25)
        assert shown["metadata"] == {"step": 3}
        flat = await server.call("GET", f"/batches/{batch}/metrics")
        assert flat["rollout/requests_ok"] == 20
        lengths = [len(item["token_ids"]) for item in results(items)]
        assert (flat["rollout/tokens"], flat["rollout/length_max"]) == (sum(lengths), max(lengths))
        assert flat["rollout/length_mean"] == sum(lengths) / 20
        gone = await server.call("POST", f"/batches/{batch}/acknowledge", {"cursor": 25})
        assert gone["state"] == "acknowledged"
        assert await server.call("GET", "/batches") == {"batches": []}
        await server.call("GET", f"/batches/{batch}/results", status=409)
        assert (await server.call("GET", f"/batches/{batch}"))["metrics"]["requests_ok"] == 20


async def test_mean_length_and_time_left_come_from_ended_responses() -> None:
    async with Served() as server:
        batch = await server.open()
        await server.upload(batch, prompts(2), seal=True)
        shown = await server.call("GET", f"/batches/{batch}")
        assert (shown["metrics"]["length_mean"], shown["eta_seconds"]) == (0.0, None)
        worker = WorkerId("ann", "boot")
        claims = await server.store.claim(worker, query(8, version="initial"))
        await server.store.complete(worker, [finish(claims[0], 40), finish(claims[1], 20)])
        shown = await server.call("GET", f"/batches/{batch}")
        assert (shown["progress"], shown["metrics"]["tokens"], shown["metrics"]["length_mean"]) == (0.25, 60, 30.0)
        assert shown["eta_seconds"] > 0


async def test_the_same_key_opens_one_batch_and_the_same_groups_are_queued_once() -> None:
    async with Served() as server:
        headers = {"Idempotency-Key": "step-1"}
        first = await server.call("POST", "/batches", {}, status=201, headers=headers)
        again = await server.call("POST", "/batches", {}, status=200, headers=headers)
        assert first["id"] == again["id"]
        assert await server.upload(first["id"], prompts(3)) == {"accepted": 3, "present": 0}
        assert await server.upload(first["id"], prompts(4)) == {"accepted": 1, "present": 3}
        await server.call("POST", f"/batches/{first['id']}/seal")
        refused = await server.call("POST", f"/batches/{first['id']}/groups", {"groups": prompts(5)}, status=409)
        assert "takes no more groups" in refused["detail"]
        whole = await server.call("POST", f"/batches/{first['id']}/groups", {"groups": prompts(4)})
        assert whole == {"accepted": 0, "present": 4}


async def test_cancelled_requests_return_their_tokens_so_far() -> None:
    async with served(job=serving_job(sampling=LONG)) as server:
        batch = await server.open()
        await server.upload(batch, prompts(6), seal=True)
        await server.until_sampled(batch)
        assert await server.call("POST", f"/batches/{batch}/cancel", {"groups": ["g0"], "index": 1}) == {"count": 1}
        await server.call("POST", f"/batches/{batch}/cancel", {"groups": ["g0", "nobody"]}, status=404)
        assert (await server.call("POST", f"/batches/{batch}/cancel", {"groups": ["g0"]}))["count"] == 3
        assert (await server.call("POST", f"/batches/{batch}/cancel", {}))["count"] == 20
        items = await server.until_complete(batch)
        assert {item["status"] for item in results(items)} == {"aborted"}
        assert {item["finish_reason"] for item in results(items)} == {"cancelled"}
        assert any(item["token_ids"] for item in results(items))
        assert not any(item["whole"] for item in ends(items))
        assert ends(items)[0]["aborted"] == 4


async def test_a_batch_with_enough_groups_cancels_the_rest() -> None:
    async with served(job=serving_job(sampling={"maxTokens": 2000})) as server:
        batch = await server.open(target={"groups": 3})
        await server.upload(batch, prompts(12))
        items = await server.until_complete(batch)
        shown = await server.call("GET", f"/batches/{batch}")
        assert shown["target_met"]
        assert sum(item["whole"] for item in ends(items)) >= 3
        assert len(ends(items)) == 12
        assert {item["finish_reason"] for item in results(items) if item["status"] != "ok"} <= {"cancelled"}


async def test_a_trainer_refills_until_enough_groups_are_valid() -> None:
    async with served() as server:
        batch = await server.open(target={"groups": 3, "count": "valid"})
        await server.upload(batch, prompts(3))
        shown = await server.call("GET", f"/batches/{batch}")
        while shown["metrics"]["groups_whole"] < 3:
            await asyncio.sleep(0.05)
            shown = await server.call("GET", f"/batches/{batch}")
        assert shown["wanted"] == 0
        shown = await server.call("POST", f"/batches/{batch}/verdicts", {"valid": ["g0"], "invalid": ["g1", "g2"]})
        assert shown["wanted"] == 2
        shown = await server.call("POST", f"/batches/{batch}/verdicts", {"valid": ["g2"]})
        assert (shown["wanted"], shown["metrics"]["groups_valid"], shown["metrics"]["groups_invalid"]) == (1, 2, 1)
        await server.upload(batch, prompts(5, first=3))
        while (await server.call("GET", f"/batches/{batch}"))["metrics"]["groups_whole"] < 5:
            await asyncio.sleep(0.05)
        await server.call("POST", f"/batches/{batch}/verdicts", {"valid": ["g3"]})
        await server.until_complete(batch)
        assert (await server.call("GET", f"/batches/{batch}"))["target_met"]


async def test_a_later_batch_finishes_carried_groups_with_all_their_tokens() -> None:
    async with served(job=serving_job(sampling={"maxTokens": 3000})) as server:
        batch = await server.open(target={"groups": 2, "rest": "carry"})
        await server.upload(batch, prompts(10))
        items = await server.until_complete(batch)
        carried = {item["group"] for item in ends(items) if item["carried_over"]}
        assert carried
        assert {item["status"] for item in results(items)} == {"ok", "carried_over"}
        later = await server.open(carry=True)
        shown = await server.call("POST", f"/batches/{later}/seal")
        assert shown["metrics"]["groups"] == len(carried)
        more = await server.until_complete(later)
        whole = [item for item in ends(more) if item["whole"]]
        assert {item["carried_from"]["group"] for item in whole} == carried
        assert {item["group"] for item in whole} == {f"{name}~{batch}" for name in carried}
        before = {(item["group"], item["index"]): item["token_ids"] for item in results(items)}
        for item in results(more):
            kept = before[item["carried_from"]["group"], item["index"]]
            assert item["token_ids"][: len(kept)] == kept
            assert len(item["logprobs"]) == len(item["token_ids"])


async def test_carried_and_new_groups_of_one_name_get_their_own_results() -> None:
    async with served(job=serving_job(sampling={"maxTokens": 3000})) as server:
        batch = await server.open(target={"groups": 1, "rest": "carry"})
        await server.upload(batch, prompts(6))
        carried = {item["group"] for item in ends(await server.until_complete(batch)) if item["carried_over"]}
        later = await server.open(carry=True, sampling={"maxTokens": 9})
        fresh = [group | {"prompt_token_ids": [7, 8]} for group in prompts(6)]
        assert await server.upload(later, fresh) == {"accepted": 6, "present": 0}
        taken = await server.http.post(f"/v1/batches/{later}/groups", json={"groups": prompts(1)})
        assert taken.status_code == 409
        assert "other content" in taken.json()["detail"]
        name = f"{min(carried)}~{batch}"
        shown = await server.call("GET", f"/batches/{later}/groups/{name}")
        assert shown["carried_from"] == {"batch": batch, "group": min(carried)}
        await server.call("POST", f"/batches/{later}/verdicts", {"valid": [name]})
        await server.call("POST", f"/batches/{later}/seal")
        items = results(await server.until_complete(later))
        new = [item for item in items if item["carried_from"] is None]
        assert all(item["prompt_token_ids"] == [7, 8] for item in new)
        assert {item["carried_from"]["group"] for item in items if item["carried_from"]} == carried
        assert all(item["prompt_token_ids"] != [7, 8] for item in items if item["carried_from"])


async def test_an_evaluation_of_high_priority_overtakes_a_long_training_batch() -> None:
    async with served(job=serving_job(workers=1, sampling={"maxTokens": 400})) as server:
        train = await server.open()
        await server.upload(train, prompts(40), seal=True)
        ahead = await server.open(purpose="eval", priority="high", sampling={"maxTokens": 5, "temperature": 0.0})
        await server.upload(ahead, prompts(2, n=2), seal=True)
        items = await server.until_complete(ahead)
        assert len(results(items)) == 4
        assert (await server.call("GET", f"/batches/{train}"))["progress"] < 0.9


async def test_a_full_queue_answers_with_429_and_loses_nothing() -> None:
    async with Served(limits=UploadLimits(queued=300)) as server:
        batch = await server.open()
        answer = await server.http.post(f"/v1/batches/{batch}/groups", json={"groups": prompts(100)})
        assert answer.status_code == 429
        assert answer.headers["Retry-After"]
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert (await server.call("GET", f"/batches/{batch}"))["metrics"]["groups"] == 64
        server.start_worker()
        while answer.status_code == 429:
            await asyncio.sleep(0.1)
            answer = await server.http.post(f"/v1/batches/{batch}/groups", json={"groups": prompts(100)})
        assert answer.json() == {"accepted": 36, "present": 64}


async def test_a_call_beyond_the_size_limit_is_refused() -> None:
    async with Served(limits=UploadLimits(line_bytes=2000, upload_bytes=5000, body_bytes=3000)) as server:
        batch = await server.open()
        path, lines = f"/v1/batches/{batch}/groups", {"Content-Type": "application/x-ndjson"}
        assert (await server.http.post(path, content="x" * 2500, headers=lines)).status_code == 413
        assert (await server.http.post(path, content="\n" * 6000, headers=lines)).status_code == 413
        assert (await server.http.post(path, json={"groups": prompts(200)})).status_code == 413
        assert (await server.http.post("/v1/batches", content=b" " * 5_000_000)).status_code == 413


async def test_an_input_error_has_field_position_and_remedy() -> None:
    async with Served() as server:
        batch = await server.open()
        path = f"/v1/batches/{batch}/groups"
        lines = {"Content-Type": "application/x-ndjson"}
        bad = await server.http.post(path, content='{"id": "a", "prompt_token_ids": [1]}\n{"id": "b"}', headers=lines)
        assert bad.status_code == 422
        assert "line 2" in bad.json()["detail"]
        assert "exactly one of" in bad.json()["detail"]
        wrong = await server.call("POST", "/batches", {"target": {"groups": 0}}, status=422)
        assert "target.groups" in wrong["detail"]
        misspelt = await server.call("POST", "/batches", {"weight_version": "v1"}, status=422)
        assert "weight_version" in misspelt["detail"]
        unknown = await server.call("POST", "/batches", {"weights_version": "v9"}, status=409)
        assert "the fleet has initial" in unknown["detail"]
        assert "there is no batch 77" in (await server.call("GET", "/batches/77", status=404))["detail"]
        await server.call("GET", f"/batches/{batch}/groups/nobody", status=404)
        kind = await server.http.post(path, content="x", headers={"Content-Type": "text/csv"})
        assert "application/x-ndjson" in kind.json()["detail"]


async def test_a_deleted_batch_and_its_running_requests_are_removed() -> None:
    async with served(job=serving_job(sampling=LONG)) as server:
        batch = await server.open()
        await server.upload(batch, prompts(4))
        await server.until_sampled(batch)
        await server.call("DELETE", f"/batches/{batch}", status=204)
        assert await server.call("GET", "/batches") == {"batches": []}
        await server.call("POST", f"/batches/{batch}/groups", {"groups": prompts(1)}, status=409)
        while (await server.call("GET", "/job"))["running"]:
            await asyncio.sleep(0.05)


async def test_group_and_request_show_partial_tokens_while_they_run() -> None:
    async with served(job=serving_job(sampling=LONG)) as server:
        batch = await server.open()
        await server.upload(batch, prompts(1, n=2))
        request: dict[str, Any] = {}
        while len(request.get("token_ids", ())) < 20:
            await asyncio.sleep(0.05)
            request = await server.call("GET", f"/batches/{batch}/groups/g0/requests/0")
        assert (request["state"], request["worker"]) == ("leased", "worker-0") or request["worker"] == "worker-1"
        group = await server.call("GET", f"/batches/{batch}/groups/g0")
        assert (group["size"], group["finished"], len(group["requests"])) == (2, 0, 2)
        await server.call("GET", f"/batches/{batch}/groups/g0/requests/2", status=404)


async def test_a_finished_response_continues_after_its_environments_turn() -> None:
    async with served(job=serving_job(sampling={"maxTokens": 3000})) as server:
        batch = await server.open(sampling={"maxTokens": 3000})
        await server.upload(batch, prompts(1, n=1))
        page = await server.call("GET", f"/batches/{batch}/results", params={"wait_seconds": 60})
        [first] = results(page["items"])
        path = f"/batches/{batch}/groups/g0/requests/0/continue"
        await server.call("POST", path, {"turn": 5, "token_ids": [1]}, status=409)
        await server.call("POST", path, {"turn": 0, "token_ids": [101, 102, 103]})
        await server.call("POST", path, {"turn": 0, "token_ids": [101, 102, 103]})
        cursor = page["items"][-1]["cursor"]
        while True:
            page = await server.call("GET", f"/batches/{batch}/results", params={"wait_seconds": 60, "cursor": cursor})
            if results(page["items"]):
                break
            cursor = page["cursor"]
        [second] = results(page["items"])
        length = len(first["token_ids"])
        assert (second["turn"], second["index"], second["group"]) == (1, 0, "g0")
        assert second["token_ids"][: length + 3] == [*first["token_ids"], 101, 102, 103]
        assert second["sampled"] == [[0, length], [length + 3, len(second["token_ids"])]]
        assert second["logprobs"][length : length + 3] == [0.0, 0.0, 0.0]
        again = await server.call("GET", f"/batches/{batch}/results", params={"limit": 1})
        assert again["items"][0]["token_ids"] == first["token_ids"]
        await server.call("POST", f"/batches/{batch}/seal")
        await server.call("POST", path, {"turn": 1}, status=409)


async def test_scored_tokens_return_with_scores_and_none_as_sampled() -> None:
    async with served() as server:
        batch = await server.open(group_size=1, sampling={"scoreFrom": 1})
        await server.upload(batch, prompts(3), seal=True)
        found = results(await server.until_complete(batch))
        assert {tuple(item["token_ids"]) for item in found} == {(6, 7), (6, 8), (6, 9)}
        for item in found:
            assert item["prompt_token_ids"][1:] == item["token_ids"]
            assert (len(item["logprobs"]), item["sampled"], item["status"]) == (2, [], "ok")


async def test_a_scored_prompt_is_one_response_of_one_turn() -> None:
    async with served(job=serving_job(speculation={"earlierResponses": 8})) as server:
        batch = await server.open(group_size=2, sampling={"scoreFrom": 1})
        refused = await server.call("POST", f"/batches/{batch}/groups", {"groups": prompts(1)}, status=422)
        assert "found 2 responses, allowed with sampling.scoreFrom: 1" in refused["detail"]
        await server.upload(batch, prompts(1, n=1))
        page = await server.call("GET", f"/batches/{batch}/results", params={"wait_seconds": 60})
        assert [item["token_ids"] for item in results(page["items"])] == [[6, 7]]
        path = f"/batches/{batch}/groups/g0/requests/0/continue"
        refused = await server.call("POST", path, {"turn": 0, "token_ids": [1]}, status=409)
        assert "was scored and not sampled" in refused["detail"]
        spec = await server.store.spec(GroupId(batch, "g0"))
        assert spec is not None
        assert await server.store.longest_earlier([prompt_digest(spec.prompt)]) == [0]
        assert (await server.call("GET", f"/batches/{batch}/groups/g0"))["estimate"] == 1


async def test_a_job_that_scores_refuses_to_complete_prompts() -> None:
    async with served(job=serving_job(sampling={"scoreFrom": 1})) as server:
        answer = await server.http.post("/v1/completions", json={"prompt": [5, 6, 7]})
        assert answer.status_code == 400
        assert "this job only scores" in answer.text
