"""Strict parsing of JSON bodies for all routes. Large bodies are parsed in a thread, so that other calls proceed."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from fastapi import Depends, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from openseer_core.errors import InputError, JsonError
from openseer_core.json_words import with_model
from openseer_core.large_json import parse_large
from openseer_core.strict_json import parse

THREAD_BYTES = 256 * 2**10
"""Limit of a body that is parsed on the event loop, in bytes; a larger one would block other calls for milliseconds."""
MOST_SHOWN = 60
"""Limit of an unknown parameter's name in the text of an error, in characters."""

_Model = TypeVar("_Model", bound=BaseModel)


JSON = "application/json"
_Body = bytes | bytearray


async def parsed(data: _Body) -> Any:
    """Returns the value of a JSON body. Raises JsonError."""
    return parse(data) if len(data) <= THREAD_BYTES else await asyncio.to_thread(parse_large, data)


async def validated(data: _Body, model: type[_Model]) -> _Model:
    """Parses a JSON body as a model. Raises JsonError, ValidationError."""
    if len(data) <= THREAD_BYTES:
        return model.model_validate(parse(data))
    return await asyncio.to_thread(lambda: model.model_validate(parse_large(data)))


def media_type(request: Request) -> str:
    """Returns the body's Content-Type in lower case, without parameters; "" if there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


class StrictRequest(Request):
    """A request whose body must have the Content-Type of JSON and be strict JSON.

    Its errors are HTTPExceptions, because FastAPI's response to any other error of a body lacks the reason.
    """

    async def stream(self) -> AsyncGenerator[bytes]:
        """Yields the pieces of the body. Raises HTTPException if the client disconnects."""
        try:
            async for piece in super().stream():
                yield piece
        except ClientDisconnect:
            raise HTTPException(499, "the client disconnected before the end of its body") from None

    async def body(self) -> bytes:
        """Returns the whole body. Raises HTTPException if its Content-Type is not JSON."""
        data = await super().body()
        kind = media_type(self)
        if data and kind != JSON:
            raise HTTPException(415, f"Content-Type: found {kind or 'none'}, allowed: {JSON}")
        return data

    async def json(self) -> Any:
        """Returns the body's value. Raises HTTPException, RequestValidationError."""
        with _refusing():
            return await parsed(await self.body())

    async def checked(self, model: type[_Model]) -> _Model:
        """Returns the body as a model. Raises HTTPException, RequestValidationError."""
        data = await self.body()
        with _refusing():
            return await validated(data, model)


@contextmanager
def _refusing() -> Generator[None]:
    try:
        yield
    except JsonError as error:
        raise HTTPException(422, f"body: {error}") from None
    except ValidationError as error:
        raise RequestValidationError([{**wrong, "loc": ("body", *wrong["loc"])} for wrong in error.errors()]) from None


def body_of(model: type[BaseModel]) -> Any:
    """Returns a dependency that reads a route's body with `StrictRequest.checked`."""

    async def read(request: Request) -> BaseModel:
        assert isinstance(request, StrictRequest)
        return await request.checked(model)

    return Depends(read)


class StrictRoute(APIRoute):
    """A route that receives a StrictRequest."""

    async def check(self, request: StrictRequest) -> None:
        """Checks a request before FastAPI reads it; this class accepts all."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Returns the handler, which receives strict requests."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            strictly = StrictRequest(request.scope, request.receive)
            await self.check(strictly)
            return await handle(strictly)

        return strict


class OwnRoute(StrictRoute):
    """A route of openseer's own API, which refuses parameters and bodies that it does not read."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._known = frozenset(_query_names(self.dependant))
        self._takes_body = self.body_field is not None or "requestBody" in (self.openapi_extra or {})

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler; its errors about the body name the known fields."""
        handle = super().get_route_handler()

        async def described(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                raise RequestValidationError(self._described(error.errors())) from None

        return described

    def _described(self, entries: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        model: object = self.body_field.field_info.annotation if self.body_field is not None else None
        of_body = all(entry["loc"][:1] == ("body",) for entry in entries)
        if of_body and isinstance(model, type) and issubclass(model, BaseModel):
            return with_model(entries, model, depth=1)
        return entries

    async def check(self, request: StrictRequest) -> None:
        """Raises InputError for a parameter that is unknown or given twice, and for a body if the route reads none."""
        given = [name for name, _ in request.query_params.multi_items()]
        for name in given:
            if name not in self._known:
                known = ", ".join(sorted(self._known)) or "none"
                raise InputError(f"query.{name[:MOST_SHOWN]}: unknown parameter, known: {known}")
            if given.count(name) > 1:
                raise InputError(f"query.{name}: found {given.count(name)} times, allowed: once")
        if not self._takes_body and (await request.body()).strip() not in (b"", b"{}", b"null"):
            raise InputError("body: found one, which this route does not read; allowed: none")


def _query_names(of: Dependant) -> Iterator[str]:
    """Yields the names of the query parameters that a route and its dependencies read."""
    yield from (field.alias for field in of.query_params)
    for part in of.dependencies:
        yield from _query_names(part)
