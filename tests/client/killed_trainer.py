"""A trainer's process that is killed and started again: `python killed_trainer.py URL TOKEN FOLDER`.

It reads groups and notes each in a file before it asks for the next one.
"""

import sys
from pathlib import Path

from openseer_client import BatchSpec, Checkpoint, Client, Group


def main(url: str, token: str, folder: Path) -> None:
    with Client(url, token=token) as client:
        batch = client.open_batch(BatchSpec(), key="step-1")
        if batch.status().state == "open":
            batch.submit(Group(id=f"g{number}", prompt_token_ids=[1, number + 2]) for number in range(60))
            batch.seal()
        for group in batch.groups(checkpoint=Checkpoint(folder / "state.json"), acknowledge=True):
            with (folder / "taken").open("a") as file:
                file.write(f"{group.name} {len(group.results)} {group.whole}\n")
    (folder / "done").touch()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
