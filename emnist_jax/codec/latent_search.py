"""Levels that decode to images more closely than the nearest ones.

The levels nearest to an image's best latents are not the best levels: the roundings of
all directions add up in the pixels. Here the search goes on from what levels decode to:
from there to where the error should be least, and rounded again.
"""

import numpy as np

from emnist_jax.codec.latent_coding import WORTH, LatentCoder, bits_of, cheapest


def improve(
    coder: LatentCoder, images: np.ndarray, levels: np.ndarray, step: float, steps: int
) -> np.ndarray:
    """Levels that cost no more error and bits together than those given.

    Each step, an image's levels move to the cheapest ones of a parabola that has their
    error and slope, and the curvature of the basis. Where that does not pay, half as
    many of them move next, those that promise most, until none is left.

    Args:
      coder: whose `run` has `errors`, as `Run` does.
      images: uint8 [n, height, width, 1].
      levels: uint8 [n, D].
      step: of the levels of any direction, as root of the squared error.
      steps: tried for each image; each passes the decoder forward and back.

    Returns:
      uint8 [n, D].
    """
    if not steps:
        return levels
    bits, basis = bits_of(coder.frequency), coder.basis
    best = levels.astype(int)  # [n, D]
    most = np.full(len(best), best.shape[1])  # levels that may move

    def judge(rows: np.ndarray, tried: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What levels cost, in squared steps, and where the error should be least."""
        errors, slopes = coder.run.errors(images[rows], coder.latents(tried))
        spent = np.take_along_axis(bits, tried.T, axis=1).sum(axis=0)
        move = slopes.astype(float) @ basis.T / (2 * step**2)
        return errors / step**2 + WORTH * spent, tried - move

    rows = np.arange(len(best))
    costs, places = judge(rows, best)
    for _ in range(steps):
        tried = _moved(best, places, bits, most)
        rows = np.flatnonzero((tried != best).any(axis=1))
        if not len(rows):
            break
        found, onward = judge(rows, tried[rows])
        better = found < costs[rows]
        moved = (tried[rows] != best[rows]).sum(axis=1)
        most[rows] = np.where(better, best.shape[1], moved // 2)
        rows, found, onward = rows[better], found[better], onward[better]
        best[rows], costs[rows], places[rows] = tried[rows], found, onward
    return best.astype(np.uint8)


def _moved(
    levels: np.ndarray, places: np.ndarray, bits: np.ndarray, most: np.ndarray
) -> np.ndarray:
    """The levels cheapest at places, but of each image only so many that gain most."""
    tried = cheapest(places, bits)
    before, after = (
        (places - x) ** 2 + WORTH * np.take_along_axis(bits, x.T, axis=1).T
        for x in (levels, tried)
    )
    gain = np.where(tried != levels, before - after, -np.inf)
    rank = np.argsort(np.argsort(-gain, axis=1, kind="stable"), axis=1, kind="stable")
    return np.where((rank < most[:, None]) & (gain > 0), tried, levels)
