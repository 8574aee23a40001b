"""How what the fleet is told is changed by a call: by compare-and-swap, tried again when somebody else was first."""

from collections.abc import Callable

from openseer_api.http.problems import BusyProblem
from openseer_api.job.context import Glance, JobContext
from openseer_core.weights.fleet_spec import FleetSpec

SWAPS = 8
"""So often is a change tried again because somebody else was first."""


async def change_orders(job: JobContext, change: Callable[[Glance], FleetSpec]) -> tuple[FleetSpec, bool]:
    """The orders that `change` makes of how things stand, and whether they are new.

    `change` is asked again for each try; where it gives the very orders that are there, nothing is written. Raises what
    it raises, and BusyProblem.
    """
    for _ in range(SWAPS):
        glance = await job.glance(fresh=True)
        orders = change(glance)
        if orders is glance.orders:
            return orders, False
        if await job.store.swap_fleet_spec(orders):
            return orders, True
    raise BusyProblem("others change what the fleet is told at this moment; try again")
