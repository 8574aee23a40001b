"""A batch job under faults: prompts from a file, a driver, results on a disk."""

import json

from openseer_core.tokens import pack_tokens
from openseer_driver.run_folder import RunFolder
from tests.chaos.scene import Scene
from tests.chaos.schedule import Fault
from tests.chaos.verdict import Taken, check_failures, check_results, request_ids
from tests.chaos.workload import GROUP_SIZE, RETRIES, group_count, write_prompts


async def run(scene: Scene, faults: list[Fault], seconds: float) -> None:
    """Plays the faults over one job, and checks what is on its disk."""
    groups = group_count(seconds, scene.job.spec.model.engine)
    write_prompts(scene.folder, groups)
    output = RunFolder(scene.disk / "run")
    command = ["-m", "openseer_driver.main", "--job", str(scene.folder / "job.json"), "--store", scene.url]
    driver = scene.add_head([*command, "--output", str(output.path), "--http-port", "0"])
    scene.start_workers()

    def written() -> int:
        return output.results_file.stat().st_size if output.results_file.exists() else 0

    await scene.play(faults, lambda: driver.done, written)
    taken = [Taken(line.request, line.status, pack_tokens(line.token_ids), line.chunks) for line in output.results()]
    check_results(scene.verdict, taken, request_ids(0, (f"g{number}" for number in range(groups)), GROUP_SIZE))
    check_failures(scene.verdict, taken, scene.dead, RETRIES)
    scene.note_recoveries(taken)
    if driver.done and output.audit_file.exists():
        scene.verdict.audit = json.loads(output.audit_file.read_text())
        scene.verdict.audit["violations"] = scene.verdict.audit["violations"][:5]
    if not scene.verdict.audit.get("ok"):
        scene.verdict.add("audit is clean", str(scene.verdict.audit.get("by_kind", "there is none")))
    await scene.leave()
