"""Order of the training images: a seeded permutation for every epoch."""

import numpy as np


def epoch_rows(examples: int, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Rows of the images of every step of an epoch.

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
