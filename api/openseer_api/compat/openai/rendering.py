"""Renders responses in OpenAI's form, with vLLM's extra fields."""

import time
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

from openseer_api.compat.live.live_request import FinishedResponse
from openseer_api.compat.live.serving import CompletionCall, Piece
from openseer_api.compat.openai.wire import ChatRequest, CompletionRequest
from openseer_core.token_scores import Likeliest, Ranked
from openseer_store.routed.npy import marked_npy

NOT_RANKED = Ranked(0, [])


def envelope(key: str, kind: str, model: str, choices: Sequence[Any]) -> dict[str, Any]:
    """Returns a response with its choices and the fields that all responses have. `key`: id of the response."""
    return {"id": key, "object": kind, "created": int(time.time()), "model": model, "choices": choices}


def usage(call: CompletionCall, tokens: int) -> dict[str, Any]:
    """Returns the token counts of a call. `tokens`: sum over its responses."""
    prompt = call.prompt_tokens
    return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}


def completion_choice(
    index: int, response: FinishedResponse, body: CompletionRequest, call: CompletionCall
) -> dict[str, Any]:
    """Returns one choice of a completion; it begins with the prompt if `echo` is set."""
    prompt = call.prompt_of(index)
    text, tokens, logprobs, places = response.text, response.tokens, response.logprobs, response.ranked
    if body.echo:
        text = _text_of_prompt(index, body, call) + text
        tokens, logprobs = prompt + tokens, _whole(response, prompt) + logprobs
        places = _ranked_of(response, prompt) + places
    return {
        "index": index,
        "text": text,
        "logprobs": _lists(tokens, logprobs, places, body, call) if body.logprobs is not None else None,
        "prompt_token_ids": prompt if body.return_token_ids else None,
        **prompt_logprobs(response, prompt, call, body.shown_prompt_top),
        **_ending(response),
        **({"token_ids": response.tokens} if body.return_token_ids else {}),
        **routed_experts(response),
    }


def completion_piece(piece: Piece, body: CompletionRequest, call: CompletionCall, begun: dict[int, int]) -> Any:
    """Returns one choice of a completion's stream. `begun`: choice → number of characters sent so far; updated here."""
    first, at = piece.index not in begun, begun.get(piece.index, 0)
    wanted = body.logprobs is not None
    lists = _lists(piece.tokens, piece.logprobs, piece.ranked, body, call, at) if wanted else None
    begun[piece.index] = at + sum(map(len, lists["tokens"])) if lists is not None else at
    return {
        "index": piece.index,
        "text": piece.text,
        "logprobs": lists,
        **({"prompt_token_ids": call.prompt_of(piece.index)} if first and body.return_token_ids else {}),
        **_ending(piece.end),
        **({"token_ids": piece.tokens} if body.return_token_ids else {}),
    }


def _text_of_prompt(index: int, body: CompletionRequest, call: CompletionCall) -> str:
    given = body.prompts[index // call.sampling_fields.count]
    if isinstance(given, str):
        return given
    return call.codec.read.whole(given) if call.codec is not None and call.codec.read is not None else ""


def _whole(response: FinishedResponse, prompt: Sequence[int]) -> list[float | None]:
    """Returns the log-probability of each token of a prompt; None for a token that has none."""
    known = response.prompt_logprobs or []
    return [None] * (len(prompt) - len(known)) + known


def _ranked_of(response: FinishedResponse, prompt: Sequence[int]) -> list[Ranked]:
    known = response.prompt_ranked
    return [NOT_RANKED] * (len(prompt) - len(known)) + known


def prompt_logprobs(
    response: FinishedResponse, prompt: Sequence[int], call: CompletionCall, top: int
) -> dict[str, Any]:
    """Returns the fields of a prompt's log-probabilities in vLLM's form: for each place a map from token id to
    log-probability, rank and text, for the prompt's token and the `top` likeliest ones. {} if none are requested."""
    if not call.scores:
        return {}
    if response.prompt_logprobs is None:
        return {"prompt_logprobs": None, "prompt_weight_version": None}
    places = zip(prompt, _whole(response, prompt), _ranked_of(response, prompt), strict=True)
    return {
        "prompt_logprobs": [
            None
            if value is None
            else {
                str(entry["token_id"]): {
                    "logprob": entry["logprob"],
                    "rank": entry["rank"],
                    "decoded_token": call.word(entry["token_id"]),
                }
                for entry in entries_of(token, value, place, top)
            }
            for token, value, place in places
        ],
        "prompt_weight_version": response.prompt_version,
    }


def entries_of(token: int, value: float | None, place: Ranked, top: int) -> list[dict[str, Any]]:
    """Returns a token, and after it the other ones of the `top` likeliest at its place, in vLLM's form with ranks.

    The rank of the token itself is None if no likeliest tokens were recorded.
    """
    likely = enumerate(place.likeliest[:top], 1)
    others = [{"token_id": other, "logprob": score, "rank": rank} for rank, (other, score) in likely if other != token]
    return [{"token_id": token, "logprob": value, "rank": place.rank or None}, *others]


def chat_choice(index: int, response: FinishedResponse, body: ChatRequest, call: CompletionCall) -> dict[str, Any]:
    """Returns one choice of a chat completion."""
    return {
        "index": index,
        "message": {"role": "assistant", "content": response.text},
        "logprobs": _contents(response, body, call) if body.logprobs else None,
        **_ending(response),
        **({"token_ids": response.tokens} if body.return_token_ids else {}),
        **routed_experts(response),
    }


def chat_piece(piece: Piece, body: ChatRequest, call: CompletionCall, *, first: bool) -> dict[str, Any]:
    """Returns one choice of a chat completion's stream. `first`: it is the first piece of this choice."""
    return {
        "index": piece.index,
        "delta": ({"role": "assistant"} if first else {}) | {"content": piece.text},
        "logprobs": _contents(piece, body, call) if body.logprobs else None,
        **_ending(piece.end),
        **({"token_ids": piece.tokens} if body.return_token_ids else {}),
    }


def routed_experts(response: FinishedResponse) -> dict[str, Any]:
    """Returns the field of routed experts in vLLM's form, a numpy file in base64; {} if none are captured."""
    return {} if response.routed is None else {"routed_experts": b64encode(marked_npy(response.routed)).decode()}


def _ending(response: FinishedResponse | None) -> dict[str, Any]:
    if response is None:
        return {"finish_reason": None}
    return {
        "finish_reason": response.finish,
        "stop_reason": response.stop_reason,
        "weight_versions": response.versions,
    }


def _lists(
    tokens: Sequence[int],
    logprobs: Sequence[float | None],
    places: Sequence[Ranked],
    body: CompletionRequest,
    call: CompletionCall,
    at: int = 0,
) -> dict[str, Any]:
    ids = bool(body.return_tokens_as_token_ids)
    words = token_words(tokens, call, ids=ids)
    scored = zip(words, logprobs, for_each(logprobs, places), strict=False)
    return {
        "tokens": words,
        "token_logprobs": list(logprobs),
        "top_logprobs": [
            None
            if value is None
            else {word: value} | dict(_with_words(place.likeliest[: body.logprobs], call, ids=ids))
            for word, value, place in scored
        ],
        "text_offset": _offsets(words, at),
    }


def for_each(logprobs: Sequence[float | None], places: Sequence[Ranked]) -> list[Ranked]:
    """Returns for each log-probability the recorded `Ranked` of its token, or NOT_RANKED."""
    return [*places[: len(logprobs)]] + [NOT_RANKED] * (len(logprobs) - len(places))


def _with_words(likely: Likeliest, call: CompletionCall, *, ids: bool) -> list[tuple[str, float]]:
    words = token_words([token for token, _ in likely], call, ids=ids)
    return [(word, value) for word, (_, value) in zip(words, likely, strict=True)]


def _contents(scored: FinishedResponse | Piece, body: ChatRequest, call: CompletionCall) -> dict[str, Any]:
    return contents(scored, call, ids=bool(body.return_tokens_as_token_ids))


def contents(scored: FinishedResponse | Piece, call: CompletionCall, *, ids: bool = False) -> dict[str, Any]:
    """Returns the log-probabilities of a response or piece in the form of chat completions.
    `ids`: see `token_words`."""

    bytes_of: dict[str, list[int]] = {}

    def entry(word: str, value: float | None) -> dict[str, Any]:
        found = bytes_of.get(word)
        if found is None:
            found = bytes_of[word] = list(word.encode())
        return {"token": word, "logprob": value, "bytes": found}

    words = token_words(scored.tokens, call, ids=ids)
    places = zip(words, scored.logprobs, for_each(scored.logprobs, scored.ranked), strict=False)
    return {
        "content": [
            entry(word, value)
            | {"top_logprobs": [entry(*pair) for pair in _with_words(place.likeliest, call, ids=ids)]}
            for word, value, place in places
        ]
    }


def token_words(tokens: Sequence[int], call: CompletionCall, *, ids: bool) -> list[str]:
    """Returns the text of each token; token_id:ID, as in vLLM, if `ids` is set or there is no tokenizer."""
    words = [None if ids else call.word(token) for token in tokens]
    return [f"token_id:{token}" if word is None else word for token, word in zip(tokens, words, strict=True)]


def _offsets(words: Sequence[str], at: int) -> list[int]:
    offsets: list[int] = []
    for word in words:
        offsets.append(at)
        at += len(word)
    return offsets
