"""The job's clock: the time of every verb, protected from steps of the server's wall clock."""

CLOCK_STEP_SECONDS = 1.5
"""Limit, in seconds, by which the job's time advances between two verbs. Every live worker calls the store once a
second, and the shortest lease lasts 2 seconds."""


class JobClock:
    """The job's time: the server's time at the first verb, plus the later steps of the server's clock, each limited.

    A step back counts as 0. A step longer than CLOCK_STEP_SECONDS counts as CLOCK_STEP_SECONDS. After both there is
    *grace*: the store did not answer or its clock was set, so a worker that did not call may still be alive. After a
    long step, grace lasts as long as the part that was not counted, but at most as long as the longest lease in use, so
    that frequent short pauses do not add up to endless grace. After a step back, or in a new epoch, grace lasts as long
    as the longest lease in use.
    """

    def __init__(self) -> None:
        self._wall: float | None = None
        self._time: float | None = None
        self._grace_until = 0.0
        self._longest_lease = 0.0

    def tick(self, wall: float, lease_seconds: float = 0.0) -> float:
        """Advances the clock to the server's time `wall` and returns the job's time. `lease_seconds`: length of the
        leases that this verb gives or renews."""
        self._longest_lease = max(self._longest_lease, lease_seconds)
        now = self.read(wall)
        if self._time is not None and (self._wall is None or not 0 <= wall - self._wall <= CLOCK_STEP_SECONDS):
            step = 0.0 if self._wall is None else wall - self._wall
            stall = step - CLOCK_STEP_SECONDS if step > 0 else self._longest_lease
            self._grace_until = max(self._grace_until, now + min(self._longest_lease, stall))
        self._wall, self._time = wall, now
        return now

    def read(self, wall: float) -> float:
        """The job's time at the server's time `wall`; does not advance the clock."""
        if self._time is None:
            return wall
        step = CLOCK_STEP_SECONDS if self._wall is None else wall - self._wall
        return self._time + min(max(step, 0.0), CLOCK_STEP_SECONDS)

    def in_grace(self, now: float) -> bool:
        """Whether there is grace: no lease expires, and no worker is removed for its silence."""
        return now < self._grace_until
