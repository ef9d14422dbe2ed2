"""How training images reach the devices: resident there, or streamed from the host."""

import concurrent.futures
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from emnist_jax.devices import parallel
from emnist_jax.training.step import Step, TrainState, make_epoch_step

FIRST_CALL_STEPS = 200  # of a compiled epoch, so that a dead start shows early

# (epoch from 0, first step in it) -> (steps of a call, what the step takes), ...
Batches = Callable[[int, int], Iterator[tuple[int, Any]]]


def lives_on_device(placement: str, images: np.ndarray) -> bool:
    """Whether `placement` ('auto', 'device' or 'host') puts images on the device."""
    if placement != "auto":
        return placement == "device"
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return False  # a compiled epoch gains nothing there
    limit = (device.memory_stats() or {}).get("bytes_limit", 4 * 2**30)
    return images.nbytes < limit / 4


def epoch_rows(examples: int, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Rows of the images of every step of an epoch: a seeded permutation.

    Depends on its arguments alone, so that a resumed run goes on in the same order.

    Args:
      examples: how many training images there are.
      batch_size: images a step.
      seed: the run's seed.
      epoch: from 0.

    Returns:
      int32 `[steps, batch_size]`; the remainder of the permutation is dropped.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(examples).astype(np.int32)
    steps = examples // batch_size
    return order[: steps * batch_size].reshape(steps, batch_size)


def step_rows(examples: int, batch_size: int, seed: int, steps: int) -> np.ndarray:
    """Rows of so many steps, over as many epochs as it takes: `[steps, batch_size]`."""
    epochs = range(-(-steps // (examples // batch_size)))
    rows = [epoch_rows(examples, batch_size, seed, epoch) for epoch in epochs]
    return np.concatenate(rows)[:steps]


def make_feed(
    train_step: Step,
    images: np.ndarray,
    rows_of: Callable[[int], np.ndarray],
    on_device: bool = False,
) -> tuple[Step, Batches]:
    """The compiled step and the batches it takes; both ways give the same results.

    Args:
      train_step: from `make_train_step`.
      images: uint8 `[N, H, W, 1]`.
      rows_of: of an epoch, the rows of the images of its steps `[steps, batch_size]`.
      on_device: an epoch is one compiled call over resident images; otherwise a
        call is one step and its batch comes from the host.
    """
    if on_device:
        resident = parallel.replicate(images)
        epoch_step = make_epoch_step(train_step)
        compiled = parallel.pmapped(epoch_step, (None, None, 0), None, True)

        def step(state: TrainState, rows: Any) -> tuple[TrainState, Any]:
            return compiled(state, resident, rows)

        def batches(epoch: int, first: int) -> Iterator[tuple[int, Any]]:
            rows = rows_of(epoch)[first:]
            cut = FIRST_CALL_STEPS if epoch == 0 else len(rows)
            for part in (rows[:cut], rows[cut:]):
                if len(part):
                    yield len(part), parallel.split(part, axis=1)

        return step, batches

    step = parallel.pmapped(train_step, (None, 0), None, True)
    return step, lambda epoch, first: _streamed(images, rows_of(epoch)[first:])


def _streamed(images: np.ndarray, rows: np.ndarray) -> Iterator[tuple[int, Any]]:
    def gather(step_rows: np.ndarray) -> Any:
        return parallel.put_split(images[step_rows])

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        ahead = None
        for step_rows in rows:  # the next batch is gathered while this one trains
            following = pool.submit(gather, step_rows)
            if ahead:
                yield 1, ahead.result()
            ahead = following
        if ahead:
            yield 1, ahead.result()
