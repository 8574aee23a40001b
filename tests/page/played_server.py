"""The page's routes over a played fleet: `python -m tests.page.played_server` shows the page without engines.

Jobs of namespace team-a, by name: states of a fleet (math, large, ended, empty) and failures (secret, gone, down,
quiet).
"""

import argparse
import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles

from openseer_core.json_model import JsonModel
from openseer_core.wire.page import MOST_TOKENS, JobCard, JobCards, JobPulse, JobView, PageProblem
from tests.page.played_fleet import Fleet
from tests.page.played_views import batch_view, card, explained, group_page, job_view
from tests.repository import ROOT

STATIC = ROOT / "api" / "openseer_api" / "page" / "static"
TOKEN = "a-token-for-tests"
COOKIE = "openseer_page"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
REFUSED = {
    "secret": PageProblem(status=403, detail="system:serviceaccount:team-b:viewer may not get batches in team-a"),
    "gone": PageProblem(status=404, detail="there is no job team-a/gone"),
}
Made = Callable[[], JsonModel]


@dataclass
class Played:
    """Content of the server. `seconds`: time between views; `step`: the fleet's seconds between views."""

    fleet: Fleet
    large: Fleet | None = None
    seconds: float = 1.0
    step: float = 1.0
    needs_token: bool = True
    silent: bool = False
    """Nothing more is sent, as if it hung."""
    no_jobs: bool = False
    most_tokens: int = MOST_TOKENS
    """Of a response in one view."""
    streams: int = field(default=0, init=False)
    """Open ones."""

    def fleet_of(self, name: str) -> Fleet:
        if name == "empty":
            return Fleet(workers=0, groups=0)
        return self.large if name == "large" and self.large else self.fleet

    def cards(self) -> JobCards:
        if self.no_jobs:
            return JobCards(jobs=[])
        refused = JobCard(
            namespace="team-a",
            name="broken",
            mode="batch",
            state="failed",
            reason="worker-0: there is no folder /models/none; mount it, or name another in spec.model.path",
            workers=1,
            workers_wanted=2,
        )
        waiting = JobCard(
            namespace="team-b",
            name="queued",
            mode="batch",
            state="waiting",
            reason="waits for 8 GPUs: quota team-b has 2 left",
            workers_wanted=8,
        )
        silent = JobCard(
            namespace="team-b",
            name="silent",
            mode="serve",
            state="unknown",
            reason="the store does not answer: no data within 2 s",
        )
        return JobCards(
            jobs=[refused, card(self.fleet, "ended", live=False), card(self.fleet, "math"), waiting, silent]
        )


def make_app(played: Played) -> FastAPI:
    """The application with the API's routes."""
    app = FastAPI()
    routes = Routes(played)
    app.add_api_route("/page/login", routes.login, methods=["POST"])
    app.add_api_route("/page/logout", routes.logout, methods=["POST"])
    job = "/page/api/jobs/{namespace}/{name}"
    app.add_api_route("/page/api/jobs", routes.jobs)
    app.add_api_route(job, routes.job)
    app.add_api_route(job + "/explained", routes.explained)
    app.add_api_route(job + "/batches/{number}", routes.batch)
    app.add_api_route(job + "/batches/{number}/group", routes.group)
    app.mount("/page", Files(directory=STATIC, html=True))
    return app


class Files(StaticFiles):
    """Serves the built page with its content security policy."""

    def file_response(self, *args: Any, **more: Any) -> Response:
        response = super().file_response(*args, **more)
        response.headers["content-security-policy"] = POLICY
        return response


class Routes:
    """Answers from the played fleets."""

    def __init__(self, played: Played) -> None:
        self._played = played

    async def login(self, request: Request) -> Response:
        if (await request.json()).get("token") != TOKEN:
            return problem(401, "the token is not one of this server's")
        response = Response(status_code=204)
        response.set_cookie(COOKIE, TOKEN, httponly=True, samesite="strict", path="/page")
        return response

    async def logout(self) -> Response:
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, path="/page")
        return response

    async def jobs(self, request: Request) -> Response:
        return self._stream(request, "", self._played.cards)

    async def job(self, request: Request, name: str) -> Response:
        return self._stream(request, name, lambda: job_of(self._played, name))

    async def explained(self, request: Request, name: str) -> Response:
        return self._stream(request, name, lambda: explained(self._played.fleet_of(name), live=name != "ended"))

    async def batch(self, request: Request, name: str) -> Response:
        return self._stream(request, name, lambda: batch_view(self._played.fleet_of(name), live=name != "ended"))

    async def group(self, request: Request, number: int) -> Response:
        name, wanted = request.path_params["name"], request.query_params["name"]
        place = request.query_params.get("index")
        fleet = self._played.fleet_of(name)
        if wanted not in fleet.groups:
            return problem(404, f"there is no group {wanted} in batch {number}")
        told = json.loads(request.headers.get("last-event-id", "{}"))
        sent = {int(one): int(count) for one, count in told.items()}
        index, live, most = None if place is None else int(place), name != "ended", self._played.most_tokens

        def made() -> JsonModel:
            return group_page(fleet, wanted, index, sent, live, most)

        return self._stream(request, name, made, lambda: json.dumps(sent))

    def _stream(self, request: Request, name: str, made: Made, place: Callable[[], str] | None = None) -> Response:
        if self._played.needs_token and request.cookies.get(COOKIE) != TOKEN:
            return problem(401, "log in")
        if name in REFUSED:
            return problem(REFUSED[name].status, REFUSED[name].detail)
        return StreamingResponse(events(self._played, name, made, place), media_type="text/event-stream")


def job_of(played: Played, name: str) -> JobView:
    view = job_view(played.fleet_of(name), name, live=name != "ended")
    if name != "empty":
        return view
    quiet = view.card.model_copy(update={"state": "waiting", "reason": "waits for its first worker"})
    return view.model_copy(update={"card": quiet, "batches": [], "transaction": None})


def problem(status: int, detail: str) -> Response:
    body = {"title": "refused", "detail": detail, "status": status}
    return JSONResponse(body, status_code=status, media_type="application/problem+json")


async def events(played: Played, name: str, made: Made, place: Callable[[], str] | None = None) -> AsyncIterator[str]:
    """One view per second, with the id that `place` returns; an unchanged view is replaced by a sign of life."""
    played.streams += 1
    try:
        last = ""
        while True:
            if name == "down":
                yield event("problem", PageProblem(status=503, detail="Redis does not answer"))
            elif not played.silent:
                view = made()
                data = last if name == "quiet" else event("view", view)
                named = f"id: {place()}\n" if place is not None else ""
                yield named + data if data != last else ": alive\n\n"
                last = data
                if isinstance(view, JobView):
                    yield event("pulse", JobPulse(now=view.now, card=view.card, lanes=view.lanes[:-1]))
            if name == "ended":
                return
            await asyncio.sleep(played.seconds)
    finally:
        played.streams -= 1


def event(name: str, body: JsonModel) -> str:
    return f"event: {name}\ndata: {body.model_dump_json()}\n\n"


def play_in_thread(played: Played) -> Callable[[], None]:
    """Advances the fleets until the returned function is called."""
    over = threading.Event()

    def play() -> None:
        while not over.wait(played.seconds):
            played.fleet.step(played.step)
            if played.large is not None:
                played.large.step(played.step)

    thread = threading.Thread(target=play, daemon=True)
    thread.start()

    def stop() -> None:
        over.set()
        thread.join()

    return stop


def grown(fleet: Fleet, seconds: int) -> Fleet:
    """The fleet `seconds` later."""
    for _ in range(seconds):
        fleet.step()
    return fleet


def main() -> None:
    """Serves until it is stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    port = parser.parse_args().port
    played = Played(grown(Fleet(groups=120), 60), needs_token=False)
    played.large = grown(Fleet(workers=64, slots=32, groups=1250, length=2400.0), 60)
    play_in_thread(played)
    uvicorn.run(make_app(played), port=port, log_level="warning")


if __name__ == "__main__":
    main()
