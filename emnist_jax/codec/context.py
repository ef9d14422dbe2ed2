"""What the pixel model sees of an image: the pixels already coded.

Pixels are coded row by row, left to right. The context of a pixel is a window of
7 rows above and 7 columns to each side, cut off at the pixel itself: 112
neighbours, 0 outside the image. A pixel whose four nearest neighbours (west,
north-west, north, north-east) are all 0 is *easy*: almost surely 0 again.
"""

import numpy as np

ROWS, COLUMNS = 7, 7  # how far the window reaches up, and to each side
WINDOW = 2 * COLUMNS + 1
NEIGHBOURS = ROWS * WINDOW + COLUMNS  # 112, in reading order
WEST = NEIGHBOURS - 1
NORTH_WEST, NORTH, NORTH_EAST = (
    (ROWS - 1) * WINDOW + COLUMNS + column for column in (-1, 0, 1)
)
NEAREST = (NORTH_WEST, NORTH, NORTH_EAST, WEST)
# Neighbours whose values near 0 and near 255 get inputs of their own: 2 rows up,
# 4 columns to each side.
FOCUS = tuple(
    row * WINDOW + column
    for row in (ROWS - 2, ROWS - 1, ROWS)
    for column in range(COLUMNS - 4, COLUMNS + 5)
    if row * WINDOW + column < NEIGHBOURS
)
INPUTS = NEIGHBOURS + 2 * len(FOCUS)  # 156


def pad(images: np.ndarray) -> np.ndarray:
    """Adds the zeros that windows at the border see.

    Args:
      images: uint8 [N, height, width].

    Returns:
      uint8 [N, height + 7, width + 14].
    """
    return np.pad(images, ((0, 0), (ROWS, 0), (COLUMNS, COLUMNS)))


def gather(padded: np.ndarray, image: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Returns the contexts of single pixels.

    Args:
      padded: uint8 [N, height + 7, width + 14] from `pad`, C-contiguous.
      image: int [n], rows of `padded`.
      pixel: int [n], row * width + column.

    Returns:
      uint8 [n, 112].
    """
    _, height, width = padded.shape
    row, column = np.divmod(pixel, width - 2 * COLUMNS)
    start = (image.astype(np.int64) * height + row) * width + column
    offsets = np.arange(ROWS + 1)[:, None] * width + np.arange(WINDOW)
    return padded.reshape(-1)[start[:, None] + offsets.reshape(-1)[:NEIGHBOURS]]


def easy_pixels(padded: np.ndarray) -> np.ndarray:
    """Returns bool [N, height, width]: whether all nearest neighbours are 0."""
    height = padded.shape[1] - ROWS
    width = padded.shape[2] - 2 * COLUMNS
    ink = np.zeros((len(padded), height, width), bool)
    for neighbour in NEAREST:
        row, column = divmod(neighbour, WINDOW)
        ink |= padded[:, row : row + height, column : column + width] > 0
    return ~ink
