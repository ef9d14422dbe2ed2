"""Random changes of training images."""

import jax
import jax.numpy as jnp

from emnist_jax.devices import parallel


def shift_images(
    images: jax.Array, most: int, seed: int, step: jax.Array, batch_size: int
) -> jax.Array:
    """This device's images, each moved at random along both axes.

    The moves depend on the seed, the step and the place in the global batch alone, so
    they are the same on any number of devices and in a resumed run.

    Args:
      images: `[B, H, W, 1]`, this device's part of the batch.
      most: pixels that an image is moved by at most.
      seed: the run's.
      step: steps done before this one.
      batch_size: images of the global batch.

    Returns:
      The same shape and type; what comes in at the edges is 0.
    """
    if not most:
        return images
    key = jax.random.fold_in(jax.random.key(seed), step)
    moves = jax.random.randint(key, (batch_size, 2), 0, 2 * most + 1)
    first = parallel.device_index() * len(images)
    moves = jax.lax.dynamic_slice_in_dim(moves, first, len(images))
    # Selected among all moves: a slice of its own for each image is a loop on a TPU.
    for axis in (1, 2):
        margins = [(0, 0)] * 4
        margins[axis] = (most, most)
        padded, size = jnp.pad(images, margins), images.shape[axis]
        move = moves[:, axis - 1, None, None, None]
        for first in range(2 * most + 1):
            part = jax.lax.slice_in_dim(padded, first, first + size, axis=axis)
            images = jnp.where(move == first, part, images)
    return images
