"""How training images reach the devices: resident there, or streamed from the host."""

import concurrent.futures
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from emnist_jax import parallel
from emnist_jax.step import TrainState, make_epoch_step

FIRST_CALL_STEPS = 200  # of a compiled epoch, so that a dead start shows early

Run = Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]


def lives_on_device(placement: str, images: np.ndarray) -> bool:
    """Whether `--data_placement` puts these images on the device."""
    if placement != "auto":
        return placement == "device"
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return False  # a compiled epoch gains nothing there
    limit = (device.memory_stats() or {}).get("bytes_limit", 4 * 2**30)
    return images.nbytes < limit / 4


class Feed:
    """Compiled calls and the batches they take; results are the same for both ways."""

    def __init__(self, images: np.ndarray, train_step: Callable, on_device: bool):
        """Places the images and prepares the compiled call.

        Args:
          images: uint8 `[N, 28, 28, 1]`.
          train_step: from `make_train_step`.
          on_device: an epoch is one compiled call over resident images; otherwise
            a call is one step and its batch comes from the host.
        """
        self._images = images
        self._on_device = on_device
        if on_device:
            resident = parallel.replicate(images)
            epoch_step = make_epoch_step(train_step)
            compiled = parallel.pmapped(epoch_step, (None, None, 0), None, True)
            self.run: Run = lambda state, rows: compiled(state, resident, rows)
        else:
            self.run = parallel.pmapped(train_step, (None, 0), None, True)

    def batches(self, rows: np.ndarray, first_epoch: bool) -> Iterator[tuple[int, Any]]:
        """How many steps each call makes, and what it takes.

        Args:
          rows: int32 `[steps, batch_size]`, rows of the images.
          first_epoch: in the first epoch a resident call ends early once.
        """
        if self._on_device:
            first = FIRST_CALL_STEPS if first_epoch else len(rows)
            for part in (rows[:first], rows[first:]):
                if len(part):
                    yield len(part), parallel.split(part, axis=1)
            return

        def gather(step_rows: np.ndarray) -> Any:
            return parallel.put_split(self._images[step_rows])

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            ahead = None
            for step_rows in rows:  # the next batch is gathered while this one trains
                following = pool.submit(gather, step_rows)
                if ahead:
                    yield 1, ahead.result()
                ahead = following
            if ahead:
                yield 1, ahead.result()
