"""Changes the fleet spec by compare-and-set, and retries if another writer changed it meanwhile."""

from collections.abc import Callable

from openseer_api.http.problems import BusyProblem
from openseer_api.job.context import FleetSnapshot, JobContext
from openseer_core.weights.fleet_spec import FleetSpec

SWAPS = 8
"""Limit of tries for one change."""


async def change_fleet_spec(job: JobContext, change: Callable[[FleetSnapshot], FleetSpec]) -> tuple[FleetSpec, bool]:
    """Applies `change` to the present fleet spec; returns the resulting one, and whether it was written.

    `change` is called once per try. If it returns the present fleet spec itself, nothing is written. Raises the
    exceptions of `change`, and BusyProblem after SWAPS tries.
    """
    for _ in range(SWAPS):
        snapshot = await job.snapshot(fresh=True)
        fleet_spec = change(snapshot)
        if fleet_spec is snapshot.fleet_spec:
            return fleet_spec, False
        if await job.store.swap_fleet_spec(fleet_spec):
            if job.traces is not None:
                job.traces.note_swap(snapshot.fleet_spec, fleet_spec)
            return fleet_spec, True
    raise BusyProblem("other calls are changing the fleet spec at this moment; try again")
