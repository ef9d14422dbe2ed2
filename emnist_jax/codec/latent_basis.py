"""A basis of latents in which equal steps cost equal error, and little else in common.

The pixels that a change of latents z changes are, near enough, J z with the decoder's
Jacobian J. In the metric G = mean(J'J) the principal directions of the latents are
those of transform coding: uncorrelated, and a step of the same length along any of them
costs the same squared error, so that one step for all is best (Goyal 2001).
"""

from collections.abc import Callable

import numpy as np

_SAMPLE = 256, 8192  # most latents to differentiate the decoder at, and derivatives
_AT_ONCE = 512  # latents decoded in one call
_CHANGE = 0.25  # by differences of so many standard deviations
_FLOOR = 1e-6  # of the largest eigenvalue: directions that the decoder hardly sees


def find(decode: Callable, latents: np.ndarray) -> tuple[np.ndarray, ...]:
    """The basis of a decoder's latents.

    Args:
      decode: float32 [n, D] to images, any shape [n, ...].
      latents: float32 [N, D], finite, at least one.

    Returns:
      directions: int8 [D, D]; coordinates c stand for latents `c @ (directions *
        scale)` from their mean.
      scale: float32 [D].
      cost: float32 [D], root of the squared error, all pixels of an image summed, of a
        coordinate that is 1 off.
    """
    values = latents.astype(np.float64)
    metric = _metric(decode, values)
    seen = np.diag(metric)
    scale = np.maximum(seen, _FLOOR**2 * seen.max() or 1.0) ** -0.5
    size, axes = np.linalg.eigh(metric * np.outer(scale, scale))
    size = np.maximum(size, _FLOOR * size[-1] or 1.0)
    root, inverse = ((axes * size**power) @ axes.T for power in (0.5, -0.5))
    spread = np.atleast_2d(np.cov(values.T / scale[:, None], bias=True))
    principal = np.linalg.eigh(root @ spread @ root)[1][:, ::-1]
    return _as_integers(principal.T @ inverse, scale)


def _metric(decode: Callable, values: np.ndarray) -> np.ndarray:
    """Mean of J'J over some latents, by central differences."""
    most, derivatives = _SAMPLE
    most = min(len(values), most, max(1, derivatives // values.shape[1]))
    rows = np.linspace(0, len(values) - 1, most).astype(int)
    change = _CHANGE * values.std(axis=0)
    change = np.where(change > 0, change, change.max() or 1.0)
    columns, group = [], max(1, _AT_ONCE // (2 * most))
    for first in range(0, len(change), group):
        by = np.diag(change)[first : first + group]
        moved = np.stack([by, -by], axis=1)[:, :, None] + values[None, None, rows]
        images = decode(moved.reshape(-1, len(change)).astype(np.float32))
        up, down = np.moveaxis(np.reshape(images, (*moved.shape[:3], -1)), 1, 0)
        columns += list((up - down).reshape(len(by), -1).astype(np.float64))
    columns = np.stack(columns) / (2 * change[:, None])
    return columns @ columns.T / len(rows)


def _as_integers(basis: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, ...]:
    """`find`'s result for rows, in units of `scale`, that cost 1 each.

    For the latents' own axes if rounding leaves too little of them.
    """
    for rows in (basis, np.eye(len(scale))):
        cost = 127 / np.abs(rows).max(axis=1)
        directions = np.round(rows * cost[:, None])
        if np.linalg.cond(directions) < 1e4:
            break
    return directions.astype(np.int8), scale.astype(np.float32), cost.astype(np.float32)
