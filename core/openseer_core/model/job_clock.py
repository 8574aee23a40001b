"""The job's clock: the time of every verb, whatever the server's wall clock does."""

CLOCK_STEP_SECONDS = 1.5
"""By how much the job's time goes on at most from one verb to the next. Every worker that lives calls once a second;
the shortest lease has 2 seconds."""


class JobClock:
    """The job's time: what its server's clock said first, and the sum of that clock's steps since.

    A step back counts as nothing, a long one as CLOCK_STEP_SECONDS, and after either there is *grace*: the store, or
    its clock, was away, and nobody can tell who has died meanwhile. After a long step it lasts as long as what was not
    counted of it, at most as long as the longest lease in use: calls that pause a little now and then do not add up to
    grace without end. After a step back, or in a new epoch, it lasts as long as that lease.
    """

    def __init__(self) -> None:
        self._wall: float | None = None
        self._time: float | None = None
        self._grace_until = 0.0
        self._longest_lease = 0.0

    def tick(self, wall: float, lease_seconds: float = 0.0) -> float:
        """The job's time at `wall` of the server's clock. `lease_seconds`: of the leases that are given or renewed."""
        self._longest_lease = max(self._longest_lease, lease_seconds)
        now = self.read(wall)
        if self._time is not None and (self._wall is None or not 0 <= wall - self._wall <= CLOCK_STEP_SECONDS):
            step = 0.0 if self._wall is None else wall - self._wall
            stall = step - CLOCK_STEP_SECONDS if step > 0 else self._longest_lease
            self._grace_until = max(self._grace_until, now + min(self._longest_lease, stall))
        self._wall, self._time = wall, now
        return now

    def read(self, wall: float) -> float:
        """The job's time, for a verb that changes nothing."""
        if self._time is None:
            return wall
        step = CLOCK_STEP_SECONDS if self._wall is None else wall - self._wall
        return self._time + min(max(step, 0.0), CLOCK_STEP_SECONDS)

    def in_grace(self, now: float) -> bool:
        """Whether no lease counts as expired and no worker as gone."""
        return now < self._grace_until
