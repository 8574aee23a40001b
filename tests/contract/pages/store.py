"""docs/store.md: the verbs of the store's protocols, and its keys."""

import inspect

from openseer_store.keys import KEY_SPACE
from openseer_store.port import DriverStore, TrainerStore, WorkerStore
from tests.contract.pages.marked import cell

PARAGRAPH = "\n\n"
CALLERS: dict[type, str] = {
    WorkerStore: "Verbs of workers",
    DriverStore: "Verbs of drivers, reports and audits",
    TrainerStore: "Further verbs of the API",
}


def verbs() -> str:
    """A table per protocol, in the order of its source: each verb with the first paragraph of its docstring."""
    made = ""
    for protocol, heading in CALLERS.items():
        made += f"## {heading}\n\n| verb | what it does |\n|---|---|\n"
        for name, verb in vars(protocol).items():
            if inspect.iscoroutinefunction(verb) and name != "close":
                purpose = inspect.getdoc(verb) or ""
                made += f"| `{name}` | {cell(purpose.partition(PARAGRAPH)[0])} |\n"
        made += "\n"
    return made


def keys() -> str:
    """Each part of a key after the job's prefix, with its content."""
    return "| key | content |\n|---|---|\n" + "".join(
        f"| `{key}` | {cell(text)} |\n" for key, text in KEY_SPACE.items()
    )
