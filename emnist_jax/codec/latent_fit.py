"""Latent files: the basis, step and tables that suit images, for a size or an error."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.codec import latent_basis, latent_search, lossy, rans
from emnist_jax.codec.latent_coding import (
    MOST_BITS,
    MOST_DIMENSIONS,
    LatentCoder,
    bits_of,
    cheapest,
    check_run,
    check_size,
    pack,
)

SAMPLE = 1 << 12  # images that basis, step and tables are fitted to
SEARCHED = 1 << 9  # of them those whose levels are searched at each step tried
BLOCK_BYTES = 0.1  # of an image: its part of the index and of a block's lanes
_COARSEST = 64  # times the finest step: hardly a level besides the first is left


def fit(
    run,
    images: np.ndarray,
    name: str,
    bits: int | None = None,
    mse: float | None = None,
    bytes_per_image: float | None = None,
    refine: int = 0,
) -> tuple[LatentCoder, bytes]:
    """Makes basis, levels and tables for images.

    Args:
      run: the trained autoencoder.
      images: uint8 [N, height, width], of the run's size.
      name: what to call the images in errors.
      bits: 1 to 8: the direction with the widest range has 2**bits levels.
      mse: or the mean squared error to reach, of white 1.
      bytes_per_image: or the size of the file to reach.
      refine: steps that bring each image's latents nearer to the best there are, and
        then steps that do the same for its levels.

    Returns:
      The coder, and what of it goes into the file.

    Raises:
      lossy.OutOfReach: no step gets to `mse` or `bytes_per_image`.
      UserError: no run, another size of images, or no images.
    """
    check_run(run, "mode=latent needs run=RUN, a trained autoencoder")
    if not len(images):
        raise UserError(f"{name} holds no images: nothing to fit levels to")
    check_size(run, images.shape[1:], name)
    rows = np.linspace(0, len(images) - 1, min(len(images), SAMPLE)).astype(int)
    sample = np.asarray(images[rows])[..., None]
    latents = np.asarray(run.encode(sample), np.float32)
    if not (np.abs(latents) < 1e18).all():  # of more, squares are not finite
        raise UserError(f"{name}: the latents that run gives them are not finite")
    if latents.shape[1] > MOST_DIMENSIONS:
        raise UserError(
            f"run has {latents.shape[1]} latents; at most {MOST_DIMENSIONS} fit"
        )
    basis = latent_basis.find(run.decode, latents)
    latents_of = functools.partial(_latents, run, basis, refine)
    latents = latents_of(sample)
    ways = latents_of, functools.partial(_improved, refine)
    make = functools.partial(_coder, run, ways, latents, basis)
    step = _finest(latents, basis, bits or MOST_BITS)
    if bits is None:
        measure = _measuring(make, latents, sample, len(images))
        limits, advice = (step, _COARSEST * step), ("mode=lossy", "fewer latents")
        step = lossy.search(measure, mse, bytes_per_image, limits, advice)
    coder = make(step)
    return coder, pack(coder)


def _latents(run, basis: tuple, steps: int, images: np.ndarray) -> np.ndarray:
    """Latents float32 [n, D] of images uint8 [n, height, width, 1]."""
    latents = np.asarray(run.encode(images), np.float32)
    if not steps or not hasattr(run, "refine"):  # any object may stand for a run
        return latents
    directions, scale, cost = basis
    even = directions * scale[None] / cost[:, None]
    return run.refine(images, latents, even.T @ even, steps)


def _improved(
    steps: int, step: float, coder: LatentCoder, images: np.ndarray, levels: np.ndarray
) -> np.ndarray:
    """Better levels uint8 [n, D] of images, where the run can say how; see `_coder`."""
    if not hasattr(coder.run, "errors"):
        return levels
    return latent_search.improve(coder, images, levels, step, steps)


def _places(latents: np.ndarray, basis: tuple) -> tuple[np.ndarray, np.ndarray]:
    """The mean of latents, and from it coordinates in units of root squared error."""
    directions, scale, cost = basis
    mean = latents.mean(axis=0, dtype=np.float64)
    inverse = np.linalg.inv(directions * scale[None].astype(float))
    return mean, (latents - mean[None]) @ inverse * cost[None]


def _finest(latents: np.ndarray, basis: tuple, bits: int) -> float:
    """The smallest step of so many bits; any where all latents are the same."""
    places = _places(latents, basis)[1]
    return float(np.ptp(places, axis=0).max()) / max(1, 2**bits - 2) or 1.0


def _coder(
    run, ways: tuple, latents: np.ndarray, basis: tuple, step: float
) -> LatentCoder:
    """The coder of a step in units of root squared error, `_finest` or more.

    `ways` lead from images to latents, and with the step to better levels.
    """
    directions, scale, cost = basis
    mean, places = _places(latents, basis)
    places /= step
    lowest, highest = (np.floor(x + 0.5) for x in (places.min(0), places.max(0)))
    bits = min(MOST_BITS, max(1, int((highest - lowest).max()).bit_length()))
    # Levels to spare lie on both sides of those of the sample.
    lowest -= np.maximum(2**bits - 1 - (highest - lowest), 0) // 2
    places -= lowest[None]
    frequency = np.ones((len(lowest), 2**bits))  # first the nearest level
    for _ in range(3):
        levels = cheapest(places, bits_of(frequency))
        counts = [np.bincount(column, minlength=2**bits) for column in levels.T]
        frequency = normalise(np.stack(counts))
    steps = (step / cost).astype(np.float32)
    latents_of, improved = ways
    ways = latents_of, functools.partial(improved, step)
    coder = LatentCoder(run, *ways, mean, steps, scale, directions, frequency)
    low = (mean + lowest @ coder.basis).astype(np.float32)
    return dataclasses.replace(coder, low=low)


def _measuring(
    make: Callable, latents: np.ndarray, sample: np.ndarray, count: int
) -> Callable:
    """From a step to bytes an image and mean squared error.

    What better levels change of both is found on a part of the sample.

    Args:
      make: gives the coder of a step.
      latents: float32 [n, D], of the sample.
      sample: uint8 [n, height, width, 1].
      count: images of the file.
    """
    rows = np.linspace(0, len(sample) - 1, min(len(sample), SEARCHED)).astype(int)

    def measure(step: float) -> tuple[float, float]:
        coder = make(step)
        levels = coder.levels(latents)
        better = coder.improve(coder, sample[rows], levels[rows])
        coded, before, after = (
            _costs(coder, x, y)
            for x, y in (
                (levels, sample),
                (levels[rows], sample[rows]),
                (better, sample[rows]),
            )
        )
        ratio = np.divide(after, before, out=np.ones(2), where=before > 0)
        size, error = coded * ratio
        return size / 8 + len(pack(coder)) / count + BLOCK_BYTES, float(error)

    return measure


def _costs(coder: LatentCoder, levels: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Bits an image, and mean squared error of white 1, of uint8 [n, h, w, 1]."""
    bits = bits_of(coder.frequency)
    coded = np.take_along_axis(bits, levels.astype(int).T, axis=1).sum()
    squares = (coder.images(levels) - images[..., 0].astype(np.int32)) ** 2
    error = float(squares.mean(dtype=np.float64)) / 255**2
    return np.array([coded / len(levels), error])


def normalise(counts: np.ndarray) -> np.ndarray:
    """Frequencies int32 [D, levels] of at least 1 that sum to 65536 in each row."""
    share = counts * (rans.TOTAL - counts.shape[1]) // counts.sum(axis=1, keepdims=True)
    share = share.astype(np.int32) + 1
    share[np.arange(len(share)), share.argmax(axis=1)] += rans.TOTAL - share.sum(axis=1)
    return share
