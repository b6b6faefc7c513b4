"""How fast a training goes: samples over seconds, of the updates alone."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Throughput:
    """Samples made into updates, and the seconds that took: waiting for data counts, evaluating and saving do not.

    The first stretch of a sitting is left out of the rate where there is another: it compiles, starts worker
    processes and warms up.
    """

    _samples: int = 0
    _seconds: float = 0.0
    _first: tuple[int, float] = (0, 0.0)
    _pending: int = 0
    _since: float = field(default_factory=time.monotonic)

    def start(self) -> None:
        """A stretch of updates begins."""
        self._since, self._pending = time.monotonic(), 0

    def count(self, samples: int) -> None:
        """`samples` more have been sent to the device."""
        self._pending += samples

    def stop(self) -> float:
        """The stretch is over and the device has finished it; the seconds it took."""
        took = time.monotonic() - self._since
        if self._pending:
            self._samples += self._pending
            self._seconds += took
            self._first = self._first if self._first[0] else (self._pending, took)
        self.start()
        return took

    @property
    def seconds(self) -> float:
        """Seconds in updates, in this sitting."""
        return self._seconds

    @property
    def rate(self) -> float | None:
        """Samples a second in this process; None before there was any update."""
        samples, seconds = self._samples, self._seconds
        if samples > self._first[0]:
            samples, seconds = samples - self._first[0], seconds - self._first[1]
        return samples / max(seconds, 1e-9) if samples else None
