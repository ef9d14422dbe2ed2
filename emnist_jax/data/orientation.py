"""Whether characters stand upright, lie transposed, or are black ink on white paper.

The weights are those of a logistic regression on the stand-in's training images, of
what changes sign when an image is transposed: the differences between mirrored cells of
a 7 x 7 grid. One upright image of its test part scores over 0 in 76% of cases, and
sets are judged by their mean.
"""

import numpy as np

_GRID = 7
_WEIGHTS = (-11, -14, 22, 0, 4, -8, 2, 1, -3, -6, 6, -7, -1, -6, -17, -4, -8, -18, -8)
_WEIGHTS += (-2, -16)  # of the cells above the diagonal, row by row
_SAMPLE = 1000  # images looked at, evenly spread
_FEWEST = 50
_BORDER = 224  # median of the outermost pixels from which paper counts as white


def sample(images: np.ndarray) -> np.ndarray:
    """At most 1,000 images, evenly spread."""
    return np.asarray(images[:: max(1, -(-len(images) // _SAMPLE))])


def looks_transposed(images: np.ndarray) -> bool:
    """Whether characters, white ink on black, are transposed.

    Measured on subsets of EMNIST (stand-in test images, NIST's MNIST and Letters): of
    4,000 mixed sets each none that was upright is called transposed; of those that are,
    57 to 99.9% are noticed at 50 images, 95% or more at 100, all at 300. A set of a
    single class can deceive it: A, M, W and n do.

    Args:
      images: uint8 [N, height, width]; others than square ones of at least 7 pixels
        and fewer than 50 are never called transposed.
    """
    count, height, width = images.shape
    if count < _FEWEST or height != width or height < _GRID:
        return False
    starts = np.arange(_GRID) * height // _GRID
    cells = np.add.reduceat(images.astype(np.float64), starts, axis=1)
    cells = np.add.reduceat(cells, starts, axis=2)
    cells /= np.maximum(cells.sum(axis=(1, 2), keepdims=True), 1)
    above, below = np.triu_indices(_GRID, 1)
    scores = (cells[:, above, below] - cells[:, below, above]) @ np.array(_WEIGHTS)
    mean, deviation = scores.mean(), scores.std() / np.sqrt(count)
    return bool(mean < min(-0.3, -4 * deviation))


def looks_inverted(images: np.ndarray) -> bool:
    """Whether uint8 images [N, height, width] are dark ink on white paper."""
    if images.size == 0:
        return False
    rows, columns = images[:, [0, -1]], images[:, :, [0, -1]]
    border = np.concatenate([rows.ravel(), columns.ravel()])
    return bool(np.median(border) >= _BORDER and images.mean() > 127)
