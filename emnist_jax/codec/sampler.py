"""Pixels to train a pixel model on: which images, and batches of their pixels."""

from collections.abc import Iterator

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.codec import context


def hold_out_distinct(images: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits distinct images into those to train on and 3% to judge by, 3000 at most.

    Args:
      images: uint8 [N, height, width]; of equal ones the first counts.
      seed: which are held out.

    Raises:
      UserError: fewer than 2 distinct images.
    """
    _, first = np.unique(images.reshape(len(images), -1), axis=0, return_index=True)
    if len(first) < 2:
        raise UserError(f"training needs at least 2 distinct images, not {len(first)}")
    first = np.random.default_rng(seed).permutation(np.sort(first))
    held = max(1, min(3000, len(first) * 3 // 100))
    return images[np.sort(first[held:])], images[np.sort(first[:held])]


class PixelSampler:
    """Draws batches of pixels from images, easy ones apart.

    Attributes:
      pixels: number of pixels of all images.
      hard_per_image: mean number of pixels an image codes with the main network.
      easy_per_image: mean number the gate codes.
    """

    def __init__(self, images: np.ndarray, seen: np.ndarray | None = None):
        """Takes uint8 [N, height, width].

        Args:
          images: what is coded.
          seen: what decoding gives, if not the same: contexts hold its pixels.
        """
        seen = images if seen is None else seen
        self._padded = context.pad(seen)
        easy = context.easy_pixels(self._padded)
        self._values = images.reshape(-1)
        self._ink = (seen > 0).reshape(-1)
        self._size = images[0].size
        self._easy = np.flatnonzero(easy).astype(np.int32)
        self._hard = np.flatnonzero(~easy | (seen > 0)).astype(np.int32)
        self.pixels = images.size
        self.easy_per_image = len(self._easy) / len(images)
        self.hard_per_image = len(self._hard) / len(images)

    def _take(self, index: np.ndarray) -> dict[str, np.ndarray]:
        image, pixel = np.divmod(index, self._size)
        return {
            "context": context.gather(self._padded, image, pixel),
            "pixel": pixel,
            "value": self._values[index],
            "ink": self._ink[index],
        }

    def draw(self, rng: np.random.Generator, hard: int, easy: int) -> dict:
        """A random batch of `hard` and `easy` pixels."""
        return {
            "hard": self._take(rng.choice(self._hard, hard)),
            "easy": self._take(rng.choice(self._easy, easy)),
        }

    def every(self, size: int) -> Iterator[tuple[str, dict, int]]:
        """Every pixel, `size` at a time: (kind, pixels, count that is not padding)."""
        for kind, index in (("hard", self._hard), ("easy", self._easy)):
            for start in range(0, len(index), size):
                piece = index[start : start + size]
                yield kind, self._take(np.resize(piece, size)), len(piece)
