"""What watches the training: losses, dead or diverged runs, the log, the time left."""

import contextlib
import math
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from emnist_jax import files, parallel
from emnist_jax.config import Config
from emnist_jax.errors import UserError
from emnist_jax.results import MetricsLog

LOG_EVERY = 20  # steps between two lines of the log
DEAD_AFTER = 50  # steps in a row without gradient or with constant outputs


class TrainingFailed(UserError):
    """Training has died or diverged."""

    def __init__(self, status: str, message: str):
        """`status` is 'dead' or 'diverged', as in the results."""
        super().__init__(message)
        self.status = status


class Monitor:
    """Reads the metrics of every step, in order and on the host."""

    def __init__(self, config: Config, log: MetricsLog, steps_per_epoch: int):
        """Logs to `log` on the process that writes."""
        self._config = config
        self._log = log
        self._steps_per_epoch = steps_per_epoch

    def account(self, progress: Any, first_step: int, values: dict) -> None:
        """Checks, sums and logs the metrics of one compiled call.

        Args:
          progress: `loop.Progress`; its loss_sum, dead_steps and images change.
          first_step: number of the first step of the call, from 1.
          values: metrics, `[]` or `[steps]` each.

        Raises:
          TrainingFailed: the training is dead, or a value is not finite.
        """
        values = {name: np.atleast_1d(value) for name, value in values.items()}
        for i in range(len(values["loss"])):
            step = first_step + i
            row = {name: float(value[i]) for name, value in values.items()}
            self._check(progress, step, row)
            progress.loss_sum += row["loss"]
            progress.images += self._config.batch_size
            if step % LOG_EVERY == 0 and parallel.is_writer():
                epoch = step / self._steps_per_epoch
                self._log.write(event="step", step=step, epoch=epoch, **row)

    def _check(self, progress: Any, step: int, row: dict[str, float]) -> None:
        loss, norm = row["loss"], row["gradient_norm"]
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingFailed(
                "diverged",
                f"training diverged at step {step}: loss {loss}, gradient norm {norm}; "
                f"lower --learning_rate={self._config.learning_rate:g} or add "
                "--warmup_steps; the last good checkpoint is kept",
            )
        # A saturated sigmoid: one constant comes out, or no gradient comes back.
        dead = (norm == 0 or row["output_range"] < 1e-4) and loss > 1e-6
        progress.dead_steps = progress.dead_steps + 1 if dead else 0
        if progress.dead_steps >= DEAD_AFTER:
            raise TrainingFailed(
                "dead",
                f"training is dead at step {step}: for {DEAD_AFTER} steps every "
                "reconstruction was one constant or the gradient 0, because the "
                "output sigmoid is saturated; start with --output_bias=mean and "
                "--initialization=glorot_uniform, a lower --learning_rate or another "
                "--seed",
            )


@contextlib.contextmanager
def profile(folder: pathlib.Path) -> Iterator[None]:
    """Traces the block into a folder for TensorBoard or Perfetto.

    Raises:
      UserError: the folder cannot be written, or the disk is full.
    """
    with files.write_folder(folder, ("plugins",)) as temporary:
        jax.profiler.start_trace(str(temporary))
        try:
            yield
        finally:
            try:
                jax.profiler.stop_trace()
            except jax.errors.JaxRuntimeError as error:  # JAX' way to say OSError
                raise OSError(str(error)) from error


class Clock:
    """Adds up the time of training, and says once how long the rest will take."""

    def __init__(
        self, batch_size: int, steps_left: int, say: Callable[[str], None] | None
    ):
        """Starts now; `say` is None when the time left has been said."""
        self._started = time.monotonic()
        self._first_call_ended: float | None = None
        self._steps = 0
        self._steps_left = steps_left
        self._batch_size = batch_size
        self._say = say

    def tick(self, steps: int) -> None:
        """Counts the steps of a call; the first one compiles and is not timed."""
        now = time.monotonic()
        if self._first_call_ended is None:
            self._first_call_ended = now
            return
        self._steps += steps
        seconds = now - self._first_call_ended
        if self._say and self._steps >= 5 and seconds > 1:
            rate = self._steps / seconds
            self._say(
                f"about {format_duration(self._steps_left / rate)} of training ahead "
                f"({rate * self._batch_size:,.0f} images/s)"
            )
            self._say = None

    def lap(self) -> float:
        """Seconds since the start or the last lap."""
        now = time.monotonic()
        seconds, self._started = now - self._started, now
        return seconds


def format_duration(seconds: float) -> str:
    """Seconds as people say them, e.g. '8 min' or '2 h 05 min'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return (
        f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
    )
