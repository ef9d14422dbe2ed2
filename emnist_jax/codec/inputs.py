"""Image arrays from the kinds of files that the command line takes."""

import gzip
import math
import os
import pathlib
import re
import stat
import sys
import warnings
import zlib

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.codec.writer import plain_images
from emnist_jax.storage.arrays import DEFLATE_RATIO, open_array, read_archive

SPLITS = ("train", "test")


def read_images(source: str, split: str = "test", emnist_archive=None) -> np.ndarray:
    """Reads images.

    Args:
      source: a `.npy` (memory-mapped) or `.npz` file with one array, an IDX file
        (also gzipped), a folder of PNG files of one size, in order of their names
        (what else is in it is named on standard error), or the name of a data set
        (`emnist/balanced`, ..., `glyphs`).
      split: which part of a data set, `train` or `test`.
      emnist_archive: a copy of NIST's `gzip.zip`, for EMNIST without internet.

    Returns:
      uint8 [N, height, width] or [N, height, width, 1].

    Raises:
      UserError: it cannot be read, or holds something else.
    """
    path = pathlib.Path(source)
    if source == "glyphs" or (source.startswith("emnist/") and not path.exists()):
        if split not in SPLITS:
            raise UserError(f"--split={split} is unknown: give {' or '.join(SPLITS)}")
        from emnist_jax import data  # of no use to who reads a compressed file

        dataset = data.load(source, emnist_archive=emnist_archive)
        return getattr(dataset, split).images
    if path.is_dir():
        images = _read_folder(path)
    elif path.suffix.lower() == ".npy":
        images = open_array(path)
    elif path.suffix.lower() == ".npz":
        images = _read_npz(path)
    else:
        images = _read_idx(path)
    plain_images(images, source)
    return images


def _read_npz(path: pathlib.Path) -> np.ndarray:
    def choose(names: list[str]) -> list[str]:
        if len(names) == 1 or "images" in names:
            return ["images" if "images" in names else names[0]]
        raise UserError(
            f"{path} holds the arrays {', '.join(names)}; name the wanted one 'images'"
        )

    (images,) = read_archive(path, choose).values()
    return images


def _read_idx(path: pathlib.Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            return _read_idx_stream(file, path)
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {path}: {reason}") from error


def _read_idx_stream(file, path: pathlib.Path) -> np.ndarray:
    status = os.fstat(file.fileno())
    # A pipe tells no size, and gives no more than comes.
    held = status.st_size if stat.S_ISREG(status.st_mode) else math.inf
    if file.peek(2)[:2] == b"\x1f\x8b":
        file, held = gzip.GzipFile(fileobj=file), held * DEFLATE_RATIO
    header = file.read(16)
    if header[:4] != b"\0\0\x08\x03" or len(header) < 16:
        raise UserError(
            f"{path} is no image file: give .npy, .npz, IDX of uint8 [N, height, "
            "width], a folder of PNG files, or a data set such as emnist/balanced"
        )
    shape = tuple(int(side) for side in np.frombuffer(header, ">u4", 3, 4))
    size = math.prod(shape)
    if size > held:
        raise UserError(
            f"{path} is damaged: {shape} pixels cannot be in so small a file"
        )
    pixels = file.read(size + 1)  # to the end, where gzip's checksum is compared
    if len(pixels) != size:
        more = "more" if len(pixels) > size else len(pixels)
        raise UserError(f"{path} is damaged: {more} pixels for {shape}")
    return np.frombuffer(pixels, np.uint8).reshape(shape)


def _read_folder(path: pathlib.Path) -> np.ndarray:
    def natural(name: pathlib.Path) -> tuple:
        parts = re.split(r"([0-9]+)", name.name)
        parts[1::2] = map(int, parts[1::2])
        return parts, name.name

    try:
        entries = list(path.iterdir())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    names = [name for name in entries if name.suffix.lower() == ".png"]
    if not names:
        raise UserError(f"{path} holds no .png files")
    if others := sorted(name.name for name in set(entries) - set(names)):
        more = ", ..." if len(others) > 3 else ""
        print(
            f"warning: {path}: {len(others)} of {len(entries)} entries are not .png "
            f"and are left out ({', '.join(others[:3])}{more})",
            file=sys.stderr,
        )
    images = []
    for name in sorted(names, key=natural):
        images.append(_read_png(name))
        if images[-1].shape != images[0].shape:
            raise UserError(
                f"{name} is {images[-1].shape}, others in {path} {images[0].shape}; "
                "give images of one size"
            )
    return np.stack(images)


def _read_png(path: pathlib.Path) -> np.ndarray:
    from PIL import Image

    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file, formats=["PNG"]) as image:
                if image.mode not in ("L", "1"):
                    raise UserError(f"{path} has mode {image.mode}; give 8-bit gray")
                held = DEFLATE_RATIO * os.fstat(file.fileno()).st_size
                if math.prod(image.size) > held * (8 if image.mode == "1" else 1):
                    raise ValueError(
                        f"{image.size} pixels cannot be in so small a file"
                    )
                return np.asarray(image.convert("L"))
    except UserError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise UserError(f"cannot read {path}: {error}") from error
