"""The Lua verbs: each has a complete header, and makes only keys that the page of keys explains."""

import re
from importlib import resources

import pytest

from openseer_store.keys import KEY_SPACE
from openseer_store.redis_link import script

TEXTS = {file.name: file.read_text(encoding="utf-8") for file in (resources.files("openseer_store") / "lua").iterdir()}
VERBS = sorted(name for name in TEXTS if not name.startswith("_"))
HEADER = ("-- Purpose    ", "-- Guarantee  ", "-- KEYS[1]    ", "-- ARGV[2]    ", "-- Returns    ")


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_has_a_complete_header(name: str) -> None:
    assert all(f"\n{word}" in f"\n{TEXTS[name]}" for word in HEADER)
    assert script(name.removesuffix(".lua"))[0].endswith(TEXTS[name])


def test_the_page_of_keys_has_exactly_the_keys_that_verbs_make() -> None:
    made = {key for text in TEXTS.values() for key in re.findall(r"P \.\. '(:[a-z_]+)", text)}
    assert made == {":" + key.split(":")[1] for key in KEY_SPACE}
