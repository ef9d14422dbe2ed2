"""Zarr stores: an array of images, or a group of `images`, `labels` and `names`."""

import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.data.found import Found
from emnist_jax.data.values import Options

MARKS = ("zarr.json", ".zarray", ".zgroup")  # one of them stands in every store
IMAGES = "images"  # the array that labels and names are of
RATIO = 4096  # bytes of images that a byte of a store may hold
AT_ONCE = 4096 * 784  # pixels


class Store(NamedTuple):
    """What an open store holds.

    Attributes:
      images: the zarr array, of any type and codec, `[N, ...]`.
      labels: numbers or words `[N]`, or None.
      names: `[N]`, or None.
    """

    images: Any
    labels: np.ndarray | None
    names: list[str] | None


def is_store(path: str | os.PathLike, *_: object) -> bool:
    """Whether a folder is a zarr store."""
    return any(os.path.isfile(os.path.join(path, mark)) for mark in MARKS)


def open_store(path: str | os.PathLike, chosen: str | None = None) -> Store:
    """Opens the array at `path`, or of a group the one called `chosen` or `images`.

    Raises:
      UserError: zarr is missing, or what the store claims cannot be.
      Exception: whatever zarr raises for a store that is damaged.
    """
    try:
        import zarr
    except ImportError as error:
        raise UserError(
            f"{path}: zarr arrays need zarr: pip install 'emnist-jax[zarr]'"
        ) from error
    node = zarr.open(os.path.abspath(path), mode="r")
    if isinstance(node, zarr.Array):
        _check_size(node, path)
        return Store(node, None, None)
    images = node[chosen or IMAGES]
    _check_size(images, path)
    if chosen not in (None, IMAGES):
        return Store(images, None, None)
    labels, names = (
        _kept(node, name, images.shape, path) for name in Store._fields[1:]
    )
    return Store(images, labels, None if names is None else list(map(str, names)))


def _kept(
    group: Any, name: str, shape: tuple, path: str | os.PathLike
) -> np.ndarray | None:
    array = group.get(name)
    if array is None:
        return None
    if array.shape != shape[:1] or array.dtype.kind not in "iuOTU":
        raise UserError(
            f"{path}: {name} is {array.dtype} {array.shape}: not one for each image"
        )
    return array[:]


def _check_size(array: Any, path: str | os.PathLike) -> None:
    """A few bytes of metadata must not fill a disk."""
    files = [p for p in pathlib.Path(path).rglob("*") if p.is_file()]
    size = sum(file.stat().st_size for file in files)
    if array.size * array.dtype.itemsize > RATIO * size:
        raise UserError(
            f"{path}: its {size} bytes claim to hold {array.dtype} {array.shape}, over "
            f"{RATIO} times as many; if you trust that, copy it with zarr"
        )


def rows_at_once(array: Any) -> int:
    """Images of whole chunks to read together, or of a part of a large one."""
    most = max(1, AT_ONCE // max(1, math.prod(array.shape[1:])))
    return most // array.chunks[0] * array.chunks[0] or most


def read(path: pathlib.Path, chosen: str | None, options: Options) -> Found:
    """An array, or of a group the one called `chosen` or `images`."""
    images, labels, names = open_store(path, chosen)
    rows = rows_at_once(images)

    def pieces() -> Iterator:
        for first in range(0, max(1, images.shape[0]), rows):
            part = slice(first, first + rows)
            kept = [None if x is None else x[part] for x in (labels, names)]
            yield images[part], *kept

    return Found(pieces())
