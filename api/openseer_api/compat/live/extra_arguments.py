"""Checks the arguments for custom logits processors of vLLM and SGLang;
openseer reads only the group's name in them."""

import difflib
from collections.abc import Mapping
from itertools import islice
from typing import Any

from pydantic.alias_generators import to_snake

from openseer_api.compat.live.protocol_model import LIKENESS, MOST_UNKNOWN
from openseer_api.compat.live.refused_fields import MOST_SHOWN, THE_FLEETS_OWN
from openseer_core.errors import InputError
from openseer_core.manifest.job import Spec

GROUP = "group_id"
"""The argument with the group's name, the only one that openseer reads."""


def check_extra_arguments(spec: Spec, place: str, given: Mapping[str, Any]) -> None:
    """Raises InputError for an argument whose name resembles GROUP, and in a job with logits processors for any other
    argument, because they do not receive it. In a job without them other arguments are ignored. `place`: the field that
    contains the arguments; `given`: the arguments."""
    others = (name for name in given if name != GROUP and name not in THE_FLEETS_OWN)
    for name in islice(others, MOST_UNKNOWN):
        shown = f"{place}.{name:.{MOST_SHOWN}}"
        if difflib.get_close_matches(to_snake(name[:MOST_SHOWN]), [GROUP], n=1, cutoff=LIKENESS):
            raise InputError(f"{shown}: unknown field; did you mean {GROUP}?")
        if spec.model.engine_args.get("logits_processors"):
            raise InputError(
                f"{shown}: found, but the job's logits processors (spec.model.engineArgs.logits_processors) get no "
                "arguments of a request; leave it out"
            )
