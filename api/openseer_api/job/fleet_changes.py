"""Changes the fleet spec by compare-and-swap, repeated when another writer was first."""

from collections.abc import Callable

from openseer_api.http.problems import BusyProblem
from openseer_api.job.context import FleetSnapshot, JobContext
from openseer_core.weights.fleet_spec import FleetSpec

SWAPS = 8
"""Limit of tries of one change."""


async def change_fleet_spec(job: JobContext, change: Callable[[FleetSnapshot], FleetSpec]) -> tuple[FleetSpec, bool]:
    """The fleet spec that `change` makes of the present one, and whether it is new.

    `change` is called again for each try; if it returns the present fleet spec itself, nothing is written. Raises the
    exceptions of `change`, and BusyProblem.
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
