"""EMNIST as NIST's MATLAB files hold it."""

import os
import pathlib
import struct
import zlib
from typing import BinaryIO

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.data.archive import MOST_BYTES, VARIANTS
from emnist_jax.data.found import Found
from emnist_jax.data.tables import emnist_variant
from emnist_jax.data.values import Options
from emnist_jax.storage import files

_COMPRESSED = 15  # the type of an element that is deflated
_AT_ONCE = 1 << 16


def read_file(path: pathlib.Path, chosen: str | None, options: Options) -> Found:
    """A part of `emnist-balanced.mat` or the like."""
    del chosen
    with files.open_regular(path) as file:
        images, labels = read_part(file, options.split or "test", str(path))
    variant = emnist_variant(path.name)
    names = VARIANTS[variant].class_names if variant else ()
    return Found([(images, labels, None)], names, transposed=True)


def read_part(file: BinaryIO, part: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """One part of the struct `dataset` of a MATLAB file.

    Args:
      file: its content.
      part: 'train' or 'test'.
      name: of the file, for errors.

    Returns:
      (uint8 [N, 784] images, transposed; uint8 [N] labels).

    Raises:
      UserError: scipy is missing, or the file holds something else.
    """
    try:
        import scipy.io
    except ImportError as error:
        raise UserError(
            f"{name}: MATLAB files need scipy: pip install 'emnist-jax[matlab]'"
        ) from error
    try:
        _expect_small(file)
        content = scipy.io.loadmat(file, variable_names=["dataset"], appendmat=False)
        found = content["dataset"][0, 0][part][0, 0]
        images, labels = found["images"], found["labels"].reshape(-1)
        if images.ndim != 2 or images.dtype != np.uint8 or len(images) != len(labels):
            raise ValueError(f"{part} holds {images.dtype} {images.shape}")
    except Exception as error:  # a damaged file can raise nearly anything
        raise UserError(
            f"cannot read {name} as EMNIST of MATLAB: {' '.join(str(error).split())}"
        ) from error
    return images, labels


def _expect_small(file: BinaryIO) -> None:
    """Refuses what unpacks to more than all of EMNIST; unpacks it once, to nowhere."""
    head = file.read(128)
    if not head.startswith(b"MATLAB 5.0"):
        raise ValueError("it is no MATLAB 5 file")
    order = "<" if head.endswith(b"IM") else ">"
    left = MOST_BYTES
    while len(tag := file.read(8)) == 8:
        kind, size = struct.unpack(f"{order}II", tag)
        if kind != _COMPRESSED:  # takes what it takes
            file.seek(size, os.SEEK_CUR)
            continue
        unpacker = zlib.decompressobj()
        while packed := file.read(min(size, _AT_ONCE)):
            size -= len(packed)
            while packed:
                left -= len(unpacker.decompress(packed, _AT_ONCE))
                packed = unpacker.unconsumed_tail
                if left < 0:
                    raise ValueError("it holds more than all of EMNIST")
    file.seek(0)
