"""How long a trial may be silent. It reports every epoch; one that does not is killed, and tried again."""

from __future__ import annotations

from collections.abc import Callable

LEAST_S = 15 * 60.0
UNKNOWN_S = 60 * 60.0  # before any epoch of its method was seen
TIMES = 10.0  # the slowest epoch so far
LOOK_EVERY_S = 5.0


class Silence:
    """When each running trial was last heard of, and for whom that is too long ago.

    ``fixed``: the limit in seconds, None for ten times the slowest epoch of the method so far, at least a quarter of an
    hour, and an hour before the first. ``clock``: seconds, by a clock that never jumps.
    """

    def __init__(self, fixed: float | None, clock: Callable[[], float]) -> None:
        self.fixed, self.clock = fixed, clock
        self._heard: dict[str, float] = {}
        self._slowest: dict[str, float] = {}

    def epoch(self, method: str, seconds: float) -> None:
        """An epoch of ``method`` took so long."""
        self._slowest[method] = max(seconds, self._slowest.get(method, 0.0))

    def limit(self, method: str) -> float:
        """Seconds that a trial of ``method`` may be silent."""
        if self.fixed is not None:
            return self.fixed
        slowest = self._slowest.get(method)
        return UNKNOWN_S if slowest is None else max(LEAST_S, TIMES * slowest)

    def heard(self, key: str) -> None:
        """A trial has just reported."""
        self._heard[key] = self.clock()

    def silent(self, running: dict[str, str]) -> dict[str, float]:
        """Of the running trials (key -> method) those that are silent for too long, and for how many seconds.

        Who is seen for the first time begins to be waited for now; who is returned is waited for anew, as the kill may
        not reach its node.
        """
        now = self.clock()
        self._heard = {key: self._heard.get(key, now) for key in running}
        found = {key: now - self._heard[key] for key, method in running.items()}
        late = {key: seconds for key, seconds in found.items() if seconds > self.limit(running[key])}
        for key in late:
            self._heard[key] = now
        return late
