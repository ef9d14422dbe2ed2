"""Random changes of training images.

They depend on the seed, the step and the place in the global batch alone, so they are
the same on any number of devices and in a resumed run.
"""

import jax
import jax.numpy as jnp

from emnist_jax.devices import parallel

_AFFINE = 0.12  # most that an entry of a linear map differs from the identity's
_BEND = 0.8 / 28  # standard deviation of the bends, of the height
_INK = 64  # a pixel above it belongs to the character


def shift_images(
    images: jax.Array, most: int, seed: int, step: jax.Array, batch_size: int
) -> jax.Array:
    """This device's images, each moved at random along both axes.

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
    moves = _own(moves, len(images))
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


def deform_images(
    images: jax.Array, share: float, seed: int, step: jax.Array, batch_size: int
) -> jax.Array:
    """This device's images, some as another hand might have written them.

    A deformed character is slanted, turned, stretched and bent at random (Simard et al.
    2003), then scaled and centred into the bounding box that it had: characters of
    EMNIST fill theirs.

    Args:
      images: uint8 `[B, H, W, 1]`, this device's part of the batch.
      share: expected share of the images that is deformed, 0 to 1.
      seed: the run's.
      step: steps done before this one.
      batch_size: images of the global batch.

    Returns:
      The same shape and type; an image without a character stays as it is.
    """
    if not share:
        return images
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), 1)
    keys = jax.random.split(key, 3)
    entries = jax.random.uniform(keys[0], (batch_size, 2, 2), minval=-1, maxval=1)
    bends = jax.random.normal(keys[1], (batch_size, 4, 4, 2))
    chosen = jax.random.bernoulli(keys[2], share, (batch_size,))
    entries, bends, chosen = (_own(x, len(images)) for x in (entries, bends, chosen))

    def deform(image: jax.Array, entries: jax.Array, bends: jax.Array) -> jax.Array:
        height, width = image.shape
        bends = jax.image.resize(bends, (height, width, 2), "cubic") * _BEND * height
        return _sample(image, _sources(image > _INK, _AFFINE * entries, bends))

    deformed = jax.vmap(deform)(images[..., 0].astype(jnp.float32), entries, bends)
    deformed = jnp.clip(jnp.round(deformed), 0, 255).astype(images.dtype)[..., None]
    return jnp.where(chosen[:, None, None, None], deformed, images)


def image_keys(seed: int, step: jax.Array, batch_size: int, rows: int) -> jax.Array:
    """A random key for each of this device's images, `[rows]`, as `corrupt` takes them.

    Args:
      seed: the run's.
      step: steps done before this one.
      batch_size: images of the global batch.
      rows: of them this device's.
    """
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), 2)
    return _own(jax.random.split(key, batch_size), rows)


def corrupt(images: jax.Array, keys: jax.Array, noise: float, hole: int) -> jax.Array:
    """Images as a model that learns to mend them gets to see them.

    Args:
      images: `[B, H, W, 1]` in [0, 1].
      keys: random keys `[B]`.
      noise: standard deviation of normal noise, added to every pixel.
      hole: side of a square, anywhere in an image, whose pixels become 0.

    Returns:
      The same shape and type, in [0, 1].
    """

    def one(image: jax.Array, key: jax.Array) -> jax.Array:
        noisy, holed = jax.random.split(key)
        if noise:
            added = jax.random.normal(noisy, image.shape, image.dtype)
            image = jnp.clip(image + noise * added, 0, 1)
        if hole:
            sides = jnp.array(image.shape[:2])
            corner = jax.random.randint(holed, (2,), 0, sides - hole + 1)
            offset = jnp.indices(image.shape[:2]) - corner[:, None, None]
            inside = ((offset >= 0) & (offset < hole)).all(axis=0)
            image = jnp.where(inside[..., None], 0, image)
        return image

    return jax.vmap(one)(images, keys) if noise or hole else images


def _own(values: jax.Array, rows: int) -> jax.Array:
    """This device's rows of values of the global batch."""
    return jax.lax.dynamic_slice_in_dim(values, parallel.device_index() * rows, rows)


def _sources(ink: jax.Array, linear: jax.Array, bends: jax.Array) -> jax.Array:
    """Where each pixel of a deformed image comes from, float32 `[H, W, 2]`.

    Args:
      ink: bool `[H, W]`, pixels of the character.
      linear: `[2, 2]`, what the linear map differs by from the identity.
      bends: `[H, W, 2]`, in pixels.
    """
    height, width = ink.shape
    axes = jnp.arange(height, dtype=jnp.float32), jnp.arange(width, dtype=jnp.float32)
    pixels = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), axis=-1)
    middle = jnp.array([[[height - 1, width - 1]]], jnp.float32) / 2

    def moved(places: jax.Array) -> jax.Array:
        return jnp.einsum("hwj,ij->hwi", places - middle, linear) + bends

    def box(places: jax.Array) -> tuple[jax.Array, jax.Array]:
        inside = {"where": ink[..., None], "axis": (0, 1), "keepdims": True}
        low = jnp.min(places, initial=jnp.inf, **inside)
        return low, jnp.max(places, initial=-jnp.inf, **inside)

    low, high = box(pixels)
    # Moves are small and smooth: a place goes, nearly, to where it came from, reversed.
    low_after, high_after = box(pixels - moved(pixels))
    scale = jnp.max(high_after - low_after) / jnp.maximum(jnp.max(high - low), 1)
    places = (pixels - (low + high) / 2) * scale
    places = places + (low_after + high_after) / 2
    return jnp.where(jnp.any(ink), places + moved(places), pixels)


def _sample(image: jax.Array, sources: jax.Array) -> jax.Array:
    """An image at places between its pixels, by cubic convolution (Keys 1981).

    Args:
      image: float32 `[H, W]`, 0 outside.
      sources: float32 `[H, W, 2]`, in pixels.
    """
    margin = 4  # as many pixels as are asked for: outside of it all are 0
    height, width = (side + 2 * margin for side in image.shape)
    flat = jnp.pad(image, margin).ravel()
    corners = jnp.floor(sources)
    weights = [_keys(sources - corners - tap) for tap in range(-1, 3)]
    corners = corners.astype(jnp.int32) + margin
    rows = jnp.clip(corners[..., 0], 1, height - 3) - 1
    columns = jnp.clip(corners[..., 1], 1, width - 3) - 1
    return sum(
        weights[i][..., 0]
        * weights[j][..., 1]
        * flat.at[(rows + i) * width + columns + j].get(mode="promise_in_bounds")
        for i in range(4)
        for j in range(4)
    )


def _keys(distance: jax.Array) -> jax.Array:
    """The kernel of cubic convolution with a = -1/2, of distances up to 2."""
    d = jnp.abs(distance)
    near = (1.5 * d - 2.5) * d * d + 1
    return jnp.where(d <= 1, near, ((2.5 - 0.5 * d) * d - 4) * d + 2)
