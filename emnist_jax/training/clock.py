"""The time of a training: what it took, and what is left."""

import time

from emnist_jax.cli import console


class Clock:
    """Adds up the time of training, and says once how long the rest will take."""

    def __init__(self, batch_size: int, unit: str):
        """Starts now; `batch_size` examples a step, each a `unit`."""
        self._started = time.monotonic()
        self._first_call_ended: float | None = None
        self._steps = 0
        self._batch_size, self._unit = batch_size, unit
        self._said = False

    def tick(self, steps: int, steps_left: int) -> None:
        """Counts the steps of a call; the first one compiles and is not timed."""
        now = time.monotonic()
        if self._first_call_ended is None:
            self._first_call_ended = now
            return
        self._steps += steps
        seconds = now - self._first_call_ended
        if not self._said and self._steps >= 5 and seconds > 1:
            rate = self._steps / seconds
            console.say(
                f"about {console.format_duration(steps_left / rate)} of training ahead "
                f"({rate * self._batch_size:,.0f} {self._unit}/s)"
            )
            self._said = True

    def lap(self) -> float:
        """Seconds since the start or the last lap."""
        now = time.monotonic()
        seconds, self._started = now - self._started, now
        return seconds
