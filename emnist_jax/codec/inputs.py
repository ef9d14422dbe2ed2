"""Image arrays from the kinds of files that the command line takes."""

import gzip
import pathlib
import re
import zipfile

import numpy as np

from emnist_jax import data
from emnist_jax.arrays import open_array
from emnist_jax.codec.writer import check_images
from emnist_jax.errors import UserError

SPLITS = ("train", "test")


def read_images(source: str, split: str = "test", emnist_archive=None) -> np.ndarray:
    """Reads images.

    Args:
      source: a `.npy` (memory-mapped) or `.npz` file with one array, an IDX file
        (also gzipped), a folder of PNG files of one size, in order of their names,
        or the name of a data set (`emnist/balanced`, ..., `glyphs`).
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
        dataset = data.load(source, emnist_archive=emnist_archive)
        return getattr(dataset, split).images
    if path.is_dir():
        images = _read_folder(path)
    elif path.suffix == ".npy":
        images = open_array(path)
    elif path.suffix == ".npz":
        images = _read_npz(path)
    else:
        images = _read_idx(path)
    check_images(images, source)
    return images


def _read_npz(path: pathlib.Path) -> np.ndarray:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            names = arrays.files
            if len(names) == 1 or "images" in names:
                return arrays["images" if "images" in names else names[0]]
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    raise UserError(
        f"{path} holds the arrays {', '.join(names)}; name the wanted one 'images'"
    )


def _read_idx(path: pathlib.Path) -> np.ndarray:
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if content[:4] != b"\0\0\x08\x03" or len(content) < 16:
        raise UserError(
            f"{path} is no image file: give .npy, .npz, IDX of uint8 [N, height, "
            "width], a folder of PNG files, or a data set such as emnist/balanced"
        )
    shape = tuple(int(side) for side in np.frombuffer(content, ">u4", 3, 4))
    if len(content) - 16 != np.prod(shape, dtype=object):
        raise UserError(f"{path} is damaged: {len(content) - 16} pixels for {shape}")
    return np.frombuffer(content, np.uint8, offset=16).reshape(shape)


def _read_folder(path: pathlib.Path) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    def natural(name: pathlib.Path) -> list:
        return [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", name.name)]

    images = []
    for name in sorted(path.glob("*.png"), key=natural):
        try:
            with Image.open(name) as image:
                if image.mode not in ("L", "1"):
                    raise UserError(f"{name} has mode {image.mode}; give 8-bit gray")
                images.append(np.asarray(image.convert("L")))
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise UserError(f"cannot read {name}: {error}") from error
        if images[-1].shape != images[0].shape:
            raise UserError(
                f"{name} is {images[-1].shape}, others in {path} {images[0].shape}; "
                "give images of one size"
            )
    if not images:
        raise UserError(f"{path} holds no .png files")
    return np.stack(images)
