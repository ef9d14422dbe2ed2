"""Lossy files: pixels are off where that is cheap, for a wanted error or size.

They are near-lossless files whose bound does not hold: among all spans of a pixel the
encoder takes the one that costs least, its bits and its squared error together, and it
comes back as the mean of what the model expects in it. One number, the *coarseness*,
says how wide spans are and what an error is worth.
"""

import math
from collections.abc import Callable

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.codec import container
from emnist_jax.codec.blocks import PixelCoder
from emnist_jax.codec.integer_model import IntegerModel

SAMPLE_PIXELS = 2048 * 784  # of the images that choose the coarseness
BLOCK = 16  # images of it coded as one stream, with one lane
INDEX_BYTES = 6 / BLOCK  # of an image
FINEST, COARSEST = 1.0, 60.0
TRIALS = 10

# Of a uniform step of 1 the squared error is 1/12, and a bit more divides it by 4: that
# is what a squared error is worth in bits then. On held-out training images 0.9 and
# 1.25 of it are alike; 0.6 leaves 9 to 12% more error at 32 to 40 bytes an image, 1.7
# of it 3 to 7% more at 32 and 36 (experiments/results/frontier/README.md).
_WORTH = 12 / (2 * math.log(2))


class OutOfReach(UserError):
    """No lossy file is as small, or as close, as asked for."""


def coder(
    models: Callable[[int], IntegerModel], shape: tuple[int, int], coarseness: float
) -> PixelCoder:
    """The coder of a coarseness from `FINEST` to `COARSEST`; `models` as for `fit`."""
    error = round(coarseness)
    weight = max(1, round(65536 * _WORTH / (2 * coarseness + 1) ** 2))
    return PixelCoder(models(error), shape, error, weight)


def check_target(
    mode: str, mse: float | None, bytes_per_image: float | None, bits: object = None
) -> None:
    """Raises `UserError` unless a file has the one target that its mode needs."""
    given = {"mse": mse, "bytes": bytes_per_image}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if mode not in ("lossy", "latent"):
            raise UserError(f"{name}={value} needs mode=lossy or latent")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{name}={value!r}: give a number")
        if not 0 < value < math.inf:
            raise UserError(f"{name}={value} is out of range: give more than 0")
    if mode == "lossy" and len(given) != 1:
        raise UserError("mode=lossy needs one target: an mse, or bytes an image")
    if mode == "latent" and len(given) + (bits is not None) > 1:
        raise UserError("mode=latent takes one of bits, mse, or bytes an image")


def fit(
    models: Callable[[int], IntegerModel],
    images: np.ndarray,
    prepare: Callable[[np.ndarray], np.ndarray],
    mse: float | None,
    bytes_per_image: float | None,
) -> PixelCoder:
    """The coder of the smallest file within an error, or the closest within a size.

    Args:
      models: gives the pixel model for a largest error of near-lossless files.
      images: uint8 [N, height, width], of which `SAMPLE_PIXELS` are tried.
      prepare: makes of some of them what is coded.
      mse: mean squared error, of white 1.
      bytes_per_image: of the file; or this.

    Raises:
      OutOfReach: no coarseness gets there.
      UserError: images are too large to be coded at all.
    """
    shape = images.shape[1:]
    if math.prod(shape) > container.MOST_CODED_PIXELS:
        raise UserError(
            f"mode=lossy: images of over {container.MOST_CODED_PIXELS} pixels are "
            "never coded; take mode=lossless"
        )
    if not len(images):
        return coder(models, shape, FINEST)
    measure = _measuring(models, images, prepare)
    advice = "mode=near-lossless or lossless", "mode=latent"
    limits = FINEST, COARSEST
    return coder(models, shape, search(measure, mse, bytes_per_image, limits, advice))


def search(
    measure: Callable[[float], tuple[float, float]],
    mse: float | None,
    bytes_per_image: float | None,
    limits: tuple[float, float],
    advice: tuple[str, str],
) -> float:
    """The smallest file within an error, or the closest within a size, of those tried.

    By halves, as if a coarser step always cost fewer bytes; where it does not, the
    best one on the way is taken.

    Args:
      measure: from a step to bytes an image and mean squared error.
      mse: the error.
      bytes_per_image: or the size.
      limits: the finest step and the coarsest.
      advice: what else there is for a smaller error, and for a smaller size.

    Raises:
      OutOfReach: no step gets there.
    """

    tried = {}

    def finer_than_wanted(step: float) -> bool:
        size, error = tried[step] = measure(step)
        return error <= mse if bytes_per_image is None else size > bytes_per_image

    low, high = limits
    if bytes_per_image is None and not finer_than_wanted(low):
        raise OutOfReach(
            f"mse={mse}: the finest such file leaves {measure(low)[1]:.2g}; take "
            f"{advice[0]}"
        )
    if bytes_per_image is not None and finer_than_wanted(high):
        raise OutOfReach(
            f"bytes={bytes_per_image}: the coarsest such file takes "
            f"{measure(high)[0]:.1f} bytes an image; take {advice[1]}"
        )
    for _ in range(TRIALS):
        middle = math.sqrt(low * high)
        if finer_than_wanted(middle):
            low = middle
        else:
            high = middle
    if bytes_per_image is None:
        fitting = [step for step, (_, error) in tried.items() if error <= mse]
        return min(fitting, key=lambda step: tried[step][0])
    fitting = [step for step, (size, _) in tried.items() if size <= bytes_per_image]
    return min(fitting, key=lambda step: tried[step][1])


def _measuring(models: Callable, images: np.ndarray, prepare: Callable) -> Callable:
    """From a coarseness to bytes an image and mean squared error, of a sample."""
    shape = images.shape[1:]
    count = max(1, SAMPLE_PIXELS // math.prod(shape))
    chosen = np.unique(np.linspace(0, len(images) - 1, count).astype(int))
    sample = prepare(np.asarray(images[chosen]))
    blocks = [sample[at : at + BLOCK] for at in range(0, len(sample), BLOCK)]

    def measure(coarseness: float) -> tuple[float, float]:
        tried = coder(models, shape, coarseness)
        streams, found = tried.encode(blocks, lambda share: None)
        squares = (sample.astype(np.int32) - found) ** 2
        size = sum(map(len, streams)) / len(sample) + INDEX_BYTES
        return size, float(squares.mean(dtype=np.float64)) / 255**2

    return measure
