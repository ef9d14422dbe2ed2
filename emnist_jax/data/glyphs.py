"""The built-in data set: handwriting-like characters drawn from code.

Every number comes from the raw stream of PCG64, which NumPy keeps stable, and
goes through additions, multiplications, divisions, comparisons and rounding,
element by element, which IEEE 754 fixes to the last bit. Nothing is summed in an
order of NumPy's choice and no transcendental function is called. So the images
are the same on every machine and with every version of NumPy that follows
IEEE 754; a test holds their checksum.
"""

import functools
import hashlib

import numpy as np

from emnist_jax.data import strokes
from emnist_jax.data.skeletons import SKELETONS
from emnist_jax.data.splits import Dataset, Split

VERSION = 1  # of the images: any change of a pixel is another version
TRAIN_PER_CLASS = 100
TEST_PER_CLASS = 20

_SEED = 47
_SIDE = 28
_SQRT_3 = 1.7320508075688772
_CHUNK = 256  # images drawn at once, so that the work stays in cache


@functools.cache
def load() -> Dataset:
    """Draws the data set: 47 classes as in EMNIST-Balanced, in alternating order.

    Returns:
      4,700 training and 940 test images, read-only: every call gives the same ones.
      `source` has `kind` (`glyphs`), `title`,
      `version` and `images_sha256`, of all images in that order.
    """
    classes = len(SKELETONS)
    train = classes * TRAIN_PER_CLASS
    labels = np.arange(classes * (TRAIN_PER_CLASS + TEST_PER_CLASS)) % classes
    images = draw(labels, _SEED)
    images.setflags(write=False)
    labels = labels.astype(np.int32)
    return Dataset(
        name="glyphs",
        train=Split(images[:train], labels[:train], np.arange(train)),
        test=Split(images[train:], labels[train:], np.arange(len(labels) - train)),
        class_names=tuple(SKELETONS),
        source={
            "kind": "glyphs",
            "title": "built-in glyphs",
            "version": VERSION,
            "images_sha256": hashlib.sha256(images.data).hexdigest(),
        },
    )


def draw(labels: np.ndarray, seed: int) -> np.ndarray:
    """Draws one image a label.

    Args:
      labels: integers [N], positions in `SKELETONS`.
      seed: of the random stream.

    Returns:
      uint8 [N, 28, 28, 1], 0 is paper and 255 is ink.
    """
    random = _Uniform(seed)
    paths = _write(labels, random)
    count = len(labels)
    radius = 3.45 + 5.2 * random(count) * random(count) + 1.4 * random(count)
    blur = 0.06 + 0.14 * random(count) * random(count)
    side = 20.8 + 2.6 * random(count)
    images = np.empty([count, _SIDE, _SIDE, 1], np.uint8)
    for start in range(0, count, _CHUNK):
        rows = slice(start, start + _CHUNK)
        images[rows, ..., 0] = _render(
            paths[rows], radius[rows], side[rows], blur[rows]
        )
    return images


class _Uniform:
    """Uniform numbers, from raw bits: a stream that NumPy guarantees to keep."""

    def __init__(self, seed: int):
        self._bits = np.random.PCG64(seed)

    def __call__(self, *shape: int) -> np.ndarray:
        """Returns float64 in [0, 1)."""
        count = int(np.prod(shape))
        return ((self._bits.random_raw(count) >> 11) * 2.0**-53).reshape(shape)

    def bell(self, *shape: int) -> np.ndarray:
        """Returns float64 of mean 0, deviation 1, within 3: nearly normal."""
        return (self(*shape) + self(*shape) + self(*shape) + self(*shape) - 2) * _SQRT_3


def _write(labels: np.ndarray, random: _Uniform) -> np.ndarray:
    """Moves a pen along the strokes of each character.

    Returns:
      float64 [N, points, 3]: x, y (in skeleton units) and relative pressure.
    """
    tables = strokes.tables()
    count = len(labels)
    ways = tables.ways[labels]
    way = tables.first_way[labels] + (random(count) * ways).astype(int)

    control = tables.control[way]  # [N, K, 2]
    wobble = 1.2 + 3.4 * random(count, 1, 1)
    control = control + wobble * random.bell(*control.shape)
    pressure = 1.0 + 0.1 * random.bell(*control.shape[:2], 1)
    control = np.concatenate([control, pressure], axis=2)

    tension = 0.5 * random(count, 1, 1) * random(count, 1, 1)  # 1: straight spans
    index = tables.index[way]  # [N, points, 4]
    weight = (1 - tension) * tables.curved[way] + tension * tables.straight[way]
    path = 0.0
    for k in range(4):
        at = np.take_along_axis(control, index[:, :, k, None], axis=1)
        path = path + weight[:, :, k, None] * at

    haste = 0.5 * random(count, 1, 1)  # a hasty pen rounds the corners
    for _ in range(4):
        before = np.take_along_axis(path, tables.before[way][:, :, None], axis=1)
        after = np.take_along_axis(path, tables.after[way][:, :, None], axis=1)
        path = (1 - haste) * path + haste * 0.5 * (before + after)
    path = _distort(path, random)
    return path + np.array([0.5, 0.5, 0.05]) * random.bell(*path.shape)  # rough edges


def _distort(path: np.ndarray, random: _Uniform) -> np.ndarray:
    """Bends the paper: a smooth elastic field, then width, slant and rotation."""
    count = len(path)
    x, y = path[:, :, 0], path[:, :, 1]
    across, down = _bernstein(x / 80), _bernstein(y / 100)
    bend = 6.0 * random.bell(count, 2, 4, 4)
    for i in range(4):
        for j in range(4):
            both = across[i] * down[j]
            x = x + bend[:, 0, i, j, None] * both
            y = y + bend[:, 1, i, j, None] * both
    width = 0.75 + 0.55 * random(count, 1) + 0.6 * random(count, 1) * random(count, 1)
    slant = 0.18 + 0.18 * random.bell(count, 1)
    turn = 0.05 * random.bell(count, 1)
    x = x * width - slant * y
    x, y = x - turn * y, y + turn * x
    return np.stack([x, y, path[:, :, 2]], axis=2)


def _bernstein(t: np.ndarray) -> list[np.ndarray]:
    """The four cubic Bernstein polynomials, of `t` kept within 0 and 1."""
    t = np.clip(t, 0.0, 1.0)
    u = 1 - t
    return [u * u * u, 3 * t * u * u, 3 * t * t * u, t * t * t]


def _render(
    path: np.ndarray, radius: np.ndarray, side: np.ndarray, blur: np.ndarray
) -> np.ndarray:
    """Centres each path in the frame and inks it, as EMNIST was scaled and blurred.

    Args:
      path: [N, points, 3].
      radius: [N] half the width of the pen, in skeleton units.
      side: [N] how long the longer side of the inked box becomes, in pixels.
      blur: [N] share of its ink that a pixel gives to each neighbour on a line.

    Returns:
      uint8 [N, 28, 28].
    """
    low, high = path[:, :, :2].min(axis=1), path[:, :, :2].max(axis=1)
    extent = (high - low).max(axis=1) + 2 * radius
    scale = side / extent
    centred = (path[:, :, :2] - (0.5 * (low + high))[:, None]) * scale[:, None, None]
    centre = 0.5 * (_SIDE - 1)
    pixel = np.arange(_SIDE) - centre
    square = (centred[..., None] - pixel).astype(np.float32)  # [N, points, 2, 28]
    square = square * square
    pen = (radius * scale)[:, None] * path[:, :, 2]
    pen_square = (pen * pen).astype(np.float32)

    # The signed distance to the inked area times its width: min over discs.
    depth = np.full([len(path), _SIDE, _SIDE], np.inf, np.float32)
    for point in range(path.shape[1]):
        rows = square[:, point, 1] - pen_square[:, point, None]
        np.minimum(depth, rows[:, :, None] + square[:, point, 0][:, None, :], out=depth)
    width = (2 * radius * scale).astype(np.float32)[:, None, None]
    ink = np.clip(0.5 - depth / width, 0, 1)

    share = blur.astype(np.float32)[:, None, None]
    for axis in (1, 2, 1, 2):
        margin = [(0, 0), (0, 0), (0, 0)]
        margin[axis] = (1, 1)
        left, right = [slice(None)] * 3, [slice(None)] * 3
        left[axis], right[axis] = slice(None, -2), slice(2, None)
        wide = np.pad(ink, margin)
        neighbours = wide[tuple(left)] + wide[tuple(right)]
        ink = (1 - 2 * share) * ink + share * neighbours
    full = ink.max(axis=(1, 2), keepdims=True)
    ink = np.clip(1.3 * (ink / full) - 0.02, 0, 1)
    return np.floor(ink * 255 + np.float32(0.5)).astype(np.uint8)
