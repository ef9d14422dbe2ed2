"""IDX files, as MNIST's and EMNIST's are: read no further than their header says."""

import gzip
import math
import os
import pathlib
import zlib
from typing import BinaryIO

import numpy as np

from emnist_jax.data.found import Found
from emnist_jax.data.values import Options
from emnist_jax.storage import files, spill
from emnist_jax.storage.arrays import DEFLATE_RATIO

MAGIC = b"\0\0\x08"  # of uint8; the number of axes follows
GZIP = b"\x1f\x8b"


def read_file(path: pathlib.Path, chosen: str | None, options: Options) -> Found:
    """Images of one file, with the labels of that beside it which bears its name."""
    del chosen, options
    images = _read(path)
    if images.ndim != 3:
        raise ValueError(f"it holds {list(images.shape)}, not [N, height, width]")
    beside = path.with_name(
        path.name.replace("images", "labels").replace("idx3", "idx1")
    )
    labels = _read(beside) if beside != path and beside.exists() else None
    if labels is not None and labels.shape != images.shape[:1]:
        raise ValueError(f"{beside.name} has {len(labels)} labels for {len(images)}")
    return Found([(images, labels, None)])


def _read(path: pathlib.Path) -> np.ndarray:
    with files.open_regular(path) as file:
        held = os.fstat(file.fileno()).st_size
        if file.read(2) == GZIP:
            file.seek(0)
            return read_stream(file, held)
        file.seek(0)
        shape = _shape(file)
        if held - file.tell() != math.prod(shape):
            raise ValueError(f"it is damaged: {held} bytes for {shape} pixels")
        return np.memmap(file, np.uint8, "r", file.tell(), shape)


def read_stream(file: BinaryIO, held: int, most: float = math.inf) -> np.ndarray:
    """The array of an IDX stream of bytes, gzipped or not.

    Args:
      file: the stream, from its start.
      held: bytes that it has.
      most: pixels that it may have.

    Returns:
      uint8, of 1 to 4 axes.

    Raises:
      ValueError: it is damaged, or claims more than so few bytes can hold.
    """
    zipped = file.read(2) == GZIP
    file.seek(0)
    if zipped:
        file, held = gzip.GzipFile(fileobj=file), held * DEFLATE_RATIO
    try:
        shape = _shape(file)
        if (size := math.prod(shape)) > min(held, most):
            raise ValueError(f"{shape} pixels are more than can be in it")
        # To the end, where gzip's checksum is compared.
        pixels = spill.read(file, size + 1, getattr(file, "name", "IDX"))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(str(error)) from error
    if len(pixels) != size:
        more = "more" if len(pixels) > size else len(pixels)
        raise ValueError(f"it is damaged: {more} pixels for {shape}")
    return pixels.reshape(shape)


def _shape(file: BinaryIO) -> tuple[int, ...]:
    """What the header says; `file` then is at the first pixel."""
    header = file.read(4)
    axes = header[3] if len(header) == 4 else 0
    if header[:3] != MAGIC or not 1 <= axes <= 4:
        raise ValueError("it is no IDX file of bytes")
    sides = file.read(4 * axes)
    if len(sides) < 4 * axes:
        raise ValueError("it is cut short within its header")
    return tuple(np.frombuffer(sides, ">u4").tolist())
