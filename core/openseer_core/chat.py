"""Chat messages: one check for prompt files, uploads, `submit` and chat routes."""

from collections.abc import Mapping
from typing import Annotated, Any, cast

from pydantic import BeforeValidator, Field, ValidationError, WithJsonSchema
from pydantic_core import InitErrorDetails, PydanticCustomError

from openseer_core.wording import one_line, shown, unknown_field

_FIELDS = ("role", "content")
_OF_TOOLS = frozenset(
    {"tool_calls", "tool_call_id", "function_call", "reasoning", "reasoning_content", "refusal", "audio", "name"}
)
"""Fields of chat messages in other APIs. They are refused, because a prompt would not contain their values."""


class ChatError(ValueError):
    """An error in chat messages. `place`: of the wrong value, within the list; `what`: message; `found`: the value."""

    def __init__(self, place: tuple[int | str, ...], what: str, found: object) -> None:
        self.place, self.what, self.found = place, what, found
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{one_line(part)}" for part in place)
        super().__init__(f"messages{path}: {what}")


def read_messages(value: object) -> list[dict[str, str]]:
    """Reads messages with role and content, both text. Raises ChatError for the first error.

    If a content is a list of text parts, they are joined. Other fields are ignored if they are null or empty.
    """
    if not isinstance(value, list | tuple) or not value:
        raise _wrong((), cast("object", value), "a list of at least one message")
    return [_message(message, index) for index, message in enumerate(cast("list[object]", value))]


def _wrong(place: tuple[int | str, ...], found: object, allowed: str) -> ChatError:
    return ChatError(place, f"found {shown(found)}, allowed: {allowed}", found)


def _message(value: object, index: int) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise _wrong((index,), value, "a map with role and content")
    message = cast("Mapping[str, Any]", value)
    for name, entry in message.items():
        if name in _FIELDS or entry in (None, [], {}):
            continue
        if name in _OF_TOOLS:
            raise _wrong((index, name), entry, "role and content; give a chat with more than that as token ids")
        raise ChatError((index, name), unknown_field(name, _FIELDS), entry)
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise _wrong((index, "role"), role, "text, not empty")
    return {"role": role, "content": _content(message.get("content"), (index, "content"))}


def _content(value: object, place: tuple[int | str, ...]) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise _wrong(place, cast("object", value), "text, or a list of parts of text")
    # vLLM joins parts in the same way, for chat templates that expect text.
    return "\n".join(_part(part, (*place, number)) for number, part in enumerate(cast("list[object]", value)))


def _part(value: object, place: tuple[int | str, ...]) -> str:
    part = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    given = {name: entry for name, entry in part.items() if entry is not None}
    text = given.get("text")
    if given.keys() != {"type", "text"} or given["type"] != "text" or not isinstance(text, str):
        raise _wrong(place, cast("object", value), '{"type": "text", "text": TEXT}')
    return text


def _validated(value: object) -> list[dict[str, str]]:
    """The validator for pydantic; its errors contain the place."""
    try:
        return read_messages(value)
    except ChatError as error:
        kind = PydanticCustomError("chat_message", "{what}", {"what": error.what})
        wrong = InitErrorDetails(type=kind, loc=error.place, input=error.found)
        raise ValidationError.from_exception_data("messages", [wrong]) from None


_SCHEMA: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {
            "role": {"type": "string", "minLength": 1},
            "content": {
                "anyOf": [
                    {"type": "string"},
                    {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
                            "required": ["type", "text"],
                        },
                    },
                ]
            },
        },
        "required": ["role", "content"],
    },
}

ChatMessages = Annotated[
    list[dict[str, str]], Field(min_length=1), BeforeValidator(_validated), WithJsonSchema(_SCHEMA)
]
"""Type of a model's field for chat messages."""
