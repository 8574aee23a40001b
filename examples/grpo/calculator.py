"""Responses of several turns with a tool: the model writes a calculation, and a calculator appends its value.

Prints the share of right answers to held-out products of 4x2 digits, without and with the tool. The model was not
trained with a tool; a turn ends at each `=`, which is a stop token here.
"""

import argparse
import math
import re
from contextlib import nullcontext
from pathlib import Path

from local_server import serving
from measures import share_interval
from problems import Problems, reward_of, tokenizer

from openseer_client import BatchSpec, Client, ResultItem, Sampling

HERE = Path(__file__).parent
TERM = r"(\d+(?:[*+]\d+)*)"


class Calculator:
    """The environment: returns the tokens to append to a response that stopped at `=`, for at most `turns` turns.

    The client calls it between two reads of results, so a slow tool should use threads (docs/trainers.md, Turns).
    """

    def __init__(self, turns: int = 24) -> None:
        self.turns = turns
        self.used = 0
        (self.equals,) = tokenizer().encode("=")

    def __call__(self, item: ResultItem) -> list[int] | None:
        """Returns the token ids to append, None after the last turn."""
        if item.token_ids[-1] != self.equals or item.turn >= self.turns:
            return None  # it did not stop at `=`, or has had all turns
        said = answer(tokenizer().decode(item.token_ids))
        if said is None:
            return None
        self.used += 1
        return tokenizer().encode(said)


def answer(text: str) -> str | None:
    """Returns the text after the last `=`: the value of the expression before it, or of the one that begins its line.

    None if there is neither.
    """
    line = text.rpartition("\n")[2]
    if line == "=":
        return "> "  # completes `=> `, the mark of the answer
    found = re.search(TERM + ":?=$", line) or re.match(TERM + ":.* =$", line)
    if found is None:
        return None
    return str(sum(math.prod(map(int, term.split("*"))) for term in found[1].split("+")))


def share_right(client: Client, problems: Problems, options: argparse.Namespace, tool: Calculator | None) -> float:
    """Returns the share of right answers, one response per prompt. Prints it with its 95 % interval (Wilson)."""
    stops = (tool.equals,) if tool is not None else ()
    sampling = Sampling(max_tokens=options.max_tokens, stop_token_ids=stops)
    groups = problems.held_out(options.prompts)
    batch = client.open_batch(BatchSpec(purpose="eval", group_size=1, sampling=sampling))
    batch.submit(groups)
    finished = batch.groups(environment=tool, seal_after=len(groups), acknowledge=True)
    right = sum(reward_of(group.results[0]) for group in finished if group.whole)
    low, high = share_interval(right, len(groups))
    turns = f", {tool.used / len(groups):.1f} calls each" if tool is not None else ""
    print(f"{'with' if tool else 'without'} the calculator: {right / len(groups):.3f} ({low:.3f}-{high:.3f}){turns}")
    return right / len(groups)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="address of the API; unset: it is started here, as in train.py")
    parser.add_argument("--job", type=Path, default=HERE / "job.yaml", help="what is served, without --url")
    parser.add_argument("--out", type=Path, default=Path("runs/calculator"))
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--max-tokens", type=int, default=320)
    options = parser.parse_args()
    here = serving(options.job, options.out / "serve") if options.url is None else nullcontext((options.url, None))
    problems = Problems(seed=1, digits=(4, 2))
    with here as (url, token_file), Client(url, token_file=token_file) as client:
        for tool in (None, Calculator()):
            share_right(client, problems, options, tool)


if __name__ == "__main__":
    main()
