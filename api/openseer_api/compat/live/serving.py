"""The steps of every generating route: checks a call, submits its live requests, awaits or streams the responses."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
from fastapi import Request
from fastapi import Response as HTTPResponse

from openseer_api.compat.live.extra_arguments import check_extra_arguments
from openseer_api.compat.live.live_request import FinishedResponse, LiveRequest, response_of, scored_by
from openseer_api.compat.live.refused_fields import MOST_SHOWN
from openseer_api.compat.live.requests import Live, live_of
from openseer_api.compat.live.sampling import SamplingFields, sampling_of
from openseer_api.http.problems import GoneError, NotFoundProblem
from openseer_api.http.rendering import made
from openseer_api.job.context import JobContext
from openseer_api.job.sampling import check_min_p
from openseer_core.admission import misfit, unranked
from openseer_core.errors import InputError, ModelError
from openseer_core.manifest.job import Sampling
from openseer_core.manifest.prompts import PromptLine
from openseer_core.manifest.sampling_json import dump_sampling, parse_sampling
from openseer_core.queue.messages import Result
from openseer_core.token_scores import Ranked, own_scores, ranked
from openseer_core.tokens import pack_tokens, readable_logprobs, unpack_tokens
from openseer_core.traces.traceparent import TraceParent
from openseer_core.wire.batches import MAX_PROMPT_TOKENS
from openseer_text.rendering import USUAL, RenderOptions, TextCodec
from openseer_text.stop_strings import begun_text

STREAM_SECONDS = 0.1
"""Interval at which a stream reads new tokens, in seconds. Tokens reach the store at the workers' checkpoints."""
MOST_REQUESTS = 4096
"""Limit of responses of one call."""
GROUP_HEADER = "X-Openseer-Group"
"""Header field with a group's name, for clients that cannot set `group_id` in the body."""
encode = msgspec.json.Encoder().encode

Prompt = list[int] | str | list[dict[str, str]]
"""Token ids, text, or chat messages."""


@dataclass(slots=True)
class CompletionCall:
    """One HTTP call. `requests`: `sampling_fields.count` live requests per prompt, in the order of the prompts; empty
    if no tokens are requested. `scores`: one live request per prompt if the prompts' log-probabilities are requested.
    `named`: all live requests, by the names that an abort may use. `words`: cache of decoded tokens."""

    sampling_fields: SamplingFields
    requests: list[LiveRequest]
    prompts: list[list[int]]
    named: dict[str, list[LiveRequest]]
    codec: TextCodec | None
    scores: list[LiveRequest]
    words: dict[int, str] = field(default_factory=dict[int, str])

    def word(self, token: int) -> str | None:
        """Returns the text of one token, also of a special token; None without a tokenizer.
        Each token is decoded once."""
        known = self.words.get(token)
        if known is None and self.codec is not None and self.codec.read is not None:
            known = self.words[token] = self.codec.read.whole([token])
        return known

    @property
    def all_requests(self) -> list[LiveRequest]:
        """The live requests that sample, followed by those that score."""
        return self.requests + self.scores

    @property
    def prompt_tokens(self) -> int:
        """Number of tokens of all prompts."""
        return sum(map(len, self.prompts))

    def prompt_of(self, index: int) -> list[int]:
        """Returns the token ids of the prompt of response `index`."""
        return self.prompts[index // self.sampling_fields.count]


@dataclass(frozen=True, slots=True)
class Piece:
    """The part of response `index` that a stream sends next. `end`: the whole response, in its last piece, else None;
    `ranked`: as in FinishedResponse."""

    index: int
    tokens: list[int]
    logprobs: list[float | None]
    text: str
    end: FinishedResponse | None = None
    ranked: list[Ranked] = field(default_factory=list[Ranked])


async def open_call(
    job: JobContext,
    request: Request,
    prompts: Sequence[Prompt],
    sampling_fields: SamplingFields,
    *,
    group: str | None = None,
    names: Iterable[str] = (),
    logprobs: bool = False,
    top: int = 0,
    options: RenderOptions = USUAL,
    field: str = "prompt",
    model: str | None = None,
    score_from: int | None = None,
    prompt_top: int = 0,
) -> CompletionCall:
    """Checks a call and renders its prompts; queues nothing. `group`: name of the group, None for none; `names`: names
    for an abort; `field`: name of the prompts' field, for errors; `model`: the model's name in the call; `score_from`:
    place of a prompt's first token whose log-probability is requested, None for none; `top`, `prompt_top`: number of
    likeliest tokens that are requested per token of a response, and per token of a prompt.
    Raises InputError, BusyProblem, and NotFoundProblem for another model."""
    adapter, scored = await adapter_of(job, model), score_from is not None
    check_count(len(prompts), len(prompts) * sampling_fields.count)
    check_extra_arguments(job.job.spec, *sampling_fields.extra_arguments)
    await live_of(job).check_room(len(prompts) * (sampling_fields.count + scored))
    own = job.job.spec.sampling
    sampling = sampling_of(own, sampling_fields, logprobs=logprobs or scored, top=top, scored=scored)
    scoring = Sampling(score_from=score_from, logprobs=own.logprobs, top_logprobs=prompt_top)
    await check_min_p(job, sampling, "min_p")
    codec = await _codec(job, prompts)
    sampling_fields.check_text(codec.read if codec is not None else None)
    name = group or request.headers.get(GROUP_HEADER, "")
    wanted = sampling_fields.count if not scored or sampling_fields.most_tokens != 0 else 0
    base_seed, caller = sampling_fields.effective_seed, TraceParent.parse(request.headers.get("traceparent"))
    loop, dumped, dumped_scoring = asyncio.get_running_loop(), dump_sampling(sampling), dump_sampling(scoring)

    form, many = sampling_fields.text_form, sampling_fields.count > 1

    def live_request(packed: bytes, dumped: str, most: int, seed: int | None, *, many: bool) -> LiveRequest:
        ended: asyncio.Future[Result | None] = loop.create_future()
        return LiveRequest(packed, dumped, most, seed, name, bool(name) or many, form, ended, adapter, caller)

    requests: list[LiveRequest] = []
    scores: list[LiveRequest] = []
    rendered: list[list[int]] = []
    limits = await job.limits_of_requests()
    for place, prompt in enumerate(prompts):
        await asyncio.sleep(0)  # lets other calls run: there may be thousands of prompts
        ids = _render(prompt, codec, options)
        problem = misfit(ids, sampling, limits, name=field) or _too_short(ids, score_from, field)
        problem = problem or (unranked(len(ids), scoring, limits) if scored else None)
        if problem:
            raise InputError(f"prompt {place}: {problem}" if len(prompts) > 1 else problem)
        rendered.append(ids)
        packed = pack_tokens(ids)
        for number in range(wanted):
            seed = None if base_seed is None else base_seed + number
            requests.append(live_request(packed, dumped, sampling.max_tokens, seed, many=many))
        if scored:
            scores.append(live_request(packed, dumped_scoring, scoring.most_added, None, many=False))
    return CompletionCall(sampling_fields, requests, rendered, dict.fromkeys(names, requests + scores), codec, scores)


def _too_short(ids: Sequence[int], score_from: int | None, field: str) -> str | None:
    """Returns the problem of a prompt without a token to score;
    None if it has such a token, or scores are not requested."""
    if score_from is None or score_from < len(ids):
        return None
    return f"{field}: found {len(ids)} tokens, needed for scores from place {score_from} on: {score_from + 1} or more"


async def render_prompts(job: JobContext, prompts: Sequence[Prompt], options: RenderOptions) -> list[list[int]]:
    """Returns the token ids of prompts, as the fleet receives them. Raises ModelError, InputError."""
    codec = await _codec(job, prompts)
    rendered: list[list[int]] = []
    for prompt in prompts:
        await asyncio.sleep(0)  # lets other calls run: there may be thousands of prompts
        rendered.append(_render(prompt, codec, options))
    return rendered


async def adapter_of(job: JobContext, name: str | None) -> str:
    """Returns the adapter with a model's name; "" for the job's model itself, and for no name.

    Raises NotFoundProblem for any other name, because the responses would be those of another model.
    """
    if not name or name in job.model_names:
        return ""
    served = [adapter.name for adapter in (await job.snapshot()).fleet_spec.adapters]
    if name not in served:  # it may have been published since the snapshot
        served = [adapter.name for adapter in (await job.snapshot(fresh=True)).fleet_spec.adapters]
    if name not in served:
        adapters = "" if job.job.spec.model.lora is None else "; an adapter has a name once it is published"
        raise NotFoundProblem(
            f"model: found {name[:MOST_SHOWN]}; the model does not exist here, allowed: "
            f"{', '.join((*job.model_names, *served))} (spec.model.servedNames adds names{adapters})"
        )
    return name


def check_count(prompts: int, responses: int) -> None:
    """Raises InputError for a number of responses outside 1 to MOST_REQUESTS."""
    if not 0 < responses <= MOST_REQUESTS:
        raise InputError(f"found {prompts} prompts with {responses} responses in all, allowed: 1 to {MOST_REQUESTS}")


async def _codec(job: JobContext, prompts: Sequence[Prompt]) -> TextCodec | None:
    """Returns the tokenizer. Raises ModelError if it cannot be loaded and a prompt is text or chat messages;
    for token ids returns None then."""
    try:
        return await job.codec()
    except ModelError:
        if any(isinstance(prompt, str) or (prompt and isinstance(prompt[0], dict)) for prompt in prompts):
            raise
        return None


def _render(prompt: Prompt, codec: TextCodec | None, options: RenderOptions) -> list[int]:
    if isinstance(prompt, str):
        assert codec is not None
        return codec.render(PromptLine("prompt", 0, prompt), options).token_ids
    ids = [token for token in prompt if isinstance(token, int)]
    if len(ids) == len(prompt):
        if len(ids) > MAX_PROMPT_TOKENS:
            raise InputError(f"prompt: found {len(ids)} token ids, allowed: at most {MAX_PROMPT_TOKENS}")
        return ids
    assert codec is not None
    messages = tuple(message for message in prompt if isinstance(message, dict))
    return codec.render(PromptLine("messages", 0, None, messages), options).token_ids


async def responses(job: JobContext, request: Request, call: CompletionCall) -> list[FinishedResponse]:
    """Submits a call and returns its responses.
    Raises GoneError if the client disconnects, and the errors of `response_of`."""
    return (await all_responses(job, request, [call]))[0]


async def all_responses(
    job: JobContext, request: Request, calls: Sequence[CompletionCall]
) -> list[list[FinishedResponse]]:
    """Submits several calls of one HTTP request and returns the responses of each. Raises as `responses`."""
    async with _submitted(job, calls):
        waiting = [live_request.ended for call in calls for live_request in call.all_requests]
        gone = asyncio.create_task(_until_disconnected(request))
        ended = asyncio.ensure_future(asyncio.wait(waiting))
        try:
            await asyncio.wait((gone, ended), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                raise GoneError("the client has disconnected")
        finally:
            gone.cancel()
            ended.cancel()
    return await made(_score_bytes(calls), lambda: [_responses(call) for call in calls])


def _responses(call: CompletionCall) -> list[FinishedResponse]:
    """Returns the responses of a call whose live requests have all ended."""

    def read(live_request: LiveRequest, codec: TextCodec | None) -> FinishedResponse:
        return response_of(live_request.ended.result(), codec, live_request.text_form, live_request.routed)

    count = call.sampling_fields.count
    scores = [scores for live_request in call.scores for scores in [read(live_request, None)] * count]
    found = [read(live_request, call.codec) for live_request in call.requests]
    if not scores:
        return found
    return [scored_by(response, of) for response, of in zip(found or [None] * len(scores), scores, strict=True)]


async def pieces(job: JobContext, call: CompletionCall) -> AsyncIterator[Piece]:
    """Submits a call and yields the new parts of its responses. Closing the iterator cancels unfinished responses.
    Raises the errors of `response_of`."""
    async with _submitted(job, [call]):
        streams = [_Stream(job, call, index) for index in range(len(call.requests))]
        while streams:
            await asyncio.wait(
                [stream.ended for stream in streams], timeout=STREAM_SECONDS, return_when="FIRST_COMPLETED"
            )
            for stream in list(streams):
                piece = await stream.next_piece()
                if piece is not None:
                    yield piece
                    if piece.end is not None:
                        streams.remove(stream)


class _Stream:
    """The stream of one response; records the tokens and characters that were sent."""

    def __init__(self, job: JobContext, call: CompletionCall, index: int) -> None:
        live_request = call.requests[index]
        self.ended = live_request.ended
        self._job, self._call, self._index, self._request = job, call, index, live_request
        self._sent: list[int] = []
        self._characters = 0
        self._stops = parse_sampling(live_request.sampling).stop

    async def next_piece(self) -> Piece | None:
        if self.ended.done():
            result, sent = self.ended.result(), len(self._sent)
            read = partial(response_of, result, self._call.codec, self._request.text_form, self._request.routed)
            end = await made(0 if result is None else len(result.logprobs), read)
            return self._piece(end.tokens[sent:], end.logprobs[sent:], end.ranked[sent:], end.text, end)
        if self._request.request_id is None:
            return None
        try:
            record = await self._job.store.record(self._request.request_id, len(self._sent))
        except KeyError:
            return None  # the request is not in the store yet
        if not record.tokens:
            return None
        tokens = unpack_tokens(record.tokens)
        logprobs = readable_logprobs(own_scores(record.tokens, record.logprobs))
        places = ranked(record.tokens, record.logprobs) or []
        return self._piece(tokens, logprobs, places, self._settled(self._sent + tokens), None)

    def _settled(self, tokens: list[int]) -> str:
        codec = self._call.codec
        if codec is None or codec.read is None:
            return ""
        return begun_text(codec.read, tokens, self._stops, self._request.text_form)

    def _piece(
        self,
        tokens: list[int],
        logprobs: list[float | None],
        places: list[Ranked],
        text: str,
        end: FinishedResponse | None,
    ) -> Piece:
        begin = self._characters
        self._sent += tokens
        self._characters = max(begin, len(text))
        return Piece(self._index, tokens, logprobs, text[begin:], end, places)


async def answer(calls: Sequence[CompletionCall], make: Callable[[], Any]) -> HTTPResponse:
    """Returns the value of `make` as a JSON response for calls that have ended. msgspec encodes it, for speed."""
    return HTTPResponse(await made(_score_bytes(calls), lambda: encode(make())), media_type="application/json")


def encoded(parts: Iterable[Any]) -> list[msgspec.Raw]:
    """Encodes each part as JSON before the next one is created, because each may be large."""
    return [msgspec.Raw(encode(part)) for part in parts]


def _score_bytes(calls: Sequence[CompletionCall]) -> int:
    """Returns the bytes of the log-probabilities and routed experts of calls that have ended."""
    requests = [live_request for call in calls for live_request in call.all_requests]
    results = [live_request.ended.result() for live_request in requests]
    rows = sum(len(live_request.routed.rows) for live_request in requests if live_request.routed is not None)
    return rows + sum(len(result.logprobs) for result in results if result is not None)


@asynccontextmanager
async def _submitted(job: JobContext, calls: Sequence[CompletionCall]) -> AsyncGenerator[Live]:
    """Submits the calls' live requests on entry; on exit removes their names and cancels the unfinished ones."""
    live = live_of(job)
    for call in calls:
        live.submit(call.all_requests, call.named)
    try:
        yield live
    finally:
        for call in calls:
            live.forget(call.named)
        await asyncio.shield(live.cancel([live_request for call in calls for live_request in call.all_requests]))


async def _until_disconnected(request: Request) -> None:
    """Returns when the client closes the connection. The body must have been read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
