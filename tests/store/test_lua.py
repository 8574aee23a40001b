"""The Lua verbs: each says what it does, and makes only keys that the page of keys explains."""

import re
from importlib import resources

import pytest

from openseer_store.keys import KEY_SPACE
from openseer_store.redis_link import script

TEXTS = {file.name: file.read_text(encoding="utf-8") for file in (resources.files("openseer_store") / "lua").iterdir()}
VERBS = sorted(name for name in TEXTS if not name.startswith("_"))
HEADER = ("-- Purpose    ", "-- Guarantee  ", "-- KEYS[1]    ", "-- ARGV[2]    ", "-- Returns    ")


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_says_what_it_does(name: str) -> None:
    assert all(f"\n{word}" in f"\n{TEXTS[name]}" for word in HEADER)
    assert script(name.removesuffix(".lua"))[0].endswith(TEXTS[name])


def test_every_key_that_a_verb_makes_is_on_the_page_of_keys_and_no_other() -> None:
    made = {key for text in TEXTS.values() for key in re.findall(r"P \.\. '(:[a-z_]+)", text)}
    assert made == {":" + key.split(":")[1] for key in KEY_SPACE}
