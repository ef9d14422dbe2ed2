"""Image and latent arrays from outside: checked before anything is computed."""

import io
import os
import pathlib
import re
import tokenize
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from emnist_jax.cli.errors import UserError
from emnist_jax.storage import files, spill, zipped

_PIXELS = "uint8 in 0..255 or floats in 0..1"
# What NumPy raises on headers that somebody made on purpose.
_BAD_HEADER = (ValueError, SyntaxError, TypeError, RecursionError, MemoryError)
_BAD_HEADER += (tokenize.TokenError,)
_LONGEST_HEADER = 1 << 14  # bytes of a .npy; NumPy itself refuses over 10,000
SIDES = range(8, 129, 2)  # heights and widths that the autoencoders take
DEFLATE_RATIO = 1032  # no deflated byte holds more


def open_array(path: str | os.PathLike) -> np.ndarray:
    """A `.npy` file as a read-only memory map, in any byte and memory order.

    Raises:
      UserError: the file is missing, cut short, of Python objects or not a `.npy`.
    """
    path = pathlib.Path(path)
    try:
        with files.open_regular(path) as file:
            shape, order, dtype, size = _read_header(file)
            start = file.tell()
            if os.fstat(file.fileno()).st_size < start + size:
                raise ValueError(f"it is cut short: {shape} {dtype} need {size} bytes")
        if size == 0:  # nothing to map
            return np.empty(shape, dtype)
        return np.memmap(path, dtype, "r", start, shape, order)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except _BAD_HEADER as error:
        reason = re.split(r"\.\s", str(error))[0]  # no advice to allow pickles
        raise UserError(f"{path} is not a NumPy .npy array: {reason}") from error


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], str, np.dtype, int]:
    """Shape, memory order, type and bytes of a `.npy`; `file` then is at its values."""
    start = io.BytesIO(file.read(_LONGEST_HEADER))
    version = np.lib.format.read_magic(start)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise ValueError(f"unknown .npy version {version}")
    shape, fortran_order, dtype = read_header(start)
    if min(shape, default=0) < 0:
        raise ValueError(f"its shape is {shape}")
    if dtype.hasobject:
        raise ValueError("it holds pickled Python objects")
    size = dtype.itemsize * int(np.prod(shape, dtype=object))
    file.seek(start.tell())
    return shape, "F" if fortran_order else "C", dtype, size


def read_archive(
    path: str | os.PathLike, choose: Callable[[list[str]], Iterable[str]] = list
) -> dict[str, np.ndarray]:
    """Arrays of a `.npz` (read-only), whose sizes are looked at before they are read.

    Args:
      path: the file.
      choose: from the names of its arrays to those wanted; all by default.

    Raises:
      UserError: the file is missing or damaged, lacks a wanted array, or claims more
        than a file of its size can hold.
    """
    path = pathlib.Path(path)
    try:
        with files.open_regular(path) as file, zipfile.ZipFile(file) as archive:
            names = [n[:-4] for n in archive.namelist() if n.endswith(".npy")]
            left = DEFLATE_RATIO * os.fstat(file.fileno()).st_size
            found = {}
            for name in choose(names):
                if name not in names:
                    raise ValueError(f"it holds no array {name!r}")
                found[name] = _read_member(archive, f"{name}.npy", left)
                left -= found[name].nbytes
            return found
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # a damaged archive can raise nearly anything
        reason = str(error) or type(error).__name__
        raise UserError(f"cannot read {path} as a .npz archive: {reason}") from error


def _read_member(archive: zipfile.ZipFile, member: str, most: int) -> np.ndarray:
    with archive.open(zipped.member(archive, member)) as file:
        shape, order, dtype, size = _read_header(file)
        if size > most:
            raise ValueError(f"{shape} {dtype} need {size} bytes, more than fit in it")
        # To the end, where the checksum is compared.
        content = spill.read(file, size + 1, str(archive.filename))
    if len(content) != size:
        raise ValueError(f"{shape} {dtype} need {size} bytes, not {len(content)}")
    return np.ndarray(shape, dtype, content, order=order)


def save_array(path: str | os.PathLike, array: np.ndarray) -> None:
    """Writes a `.npy` file; raises as `save_batches`."""
    save_batches(path, [array], array.shape, array.dtype)


def save_batches(
    path: str | os.PathLike,
    batches: Iterable[np.ndarray],
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
) -> None:
    """Writes batches one after the other as one `.npy` array.

    Not by `np.save`, which may lose the end of an array in silence when the disk is
    full (NumPy 2.4).

    Args:
      path: the file, which appears when it is complete.
      batches: arrays `[b, ...]` that add up to `shape`.
      shape: of the whole array.
      dtype: its type.

    Raises:
      UserError: the file cannot be written, or the disk is full.
    """
    with files.write_atomically(path) as temporary, open(temporary, "wb") as file:
        write_batches(file, batches, shape, dtype)


def write_batches(
    file: BinaryIO,
    batches: Iterable[np.ndarray],
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
) -> None:
    """`save_batches` into an open file."""
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    count = 0
    for batch in batches:
        file.write(np.ascontiguousarray(batch, dtype))
        count += len(batch)
    if count != shape[0]:
        raise AssertionError(f"{count} rows for an array of {shape}")


def check_images(
    images: np.ndarray, name: str = "images", size: tuple[int, int] | None = None
) -> np.ndarray:
    """Images as `[N, H, W, 1]`, native byte order.

    Args:
      images: `[N, H, W, 1]` or `[N, H, W]`, uint8, or floats in [0, 1]; H and W are
        in `SIDES`.
      name: flag or file, for errors.
      size: height and width of the images that trained, None where there are none.

    Raises:
      UserError: shape, type or range is wrong.
    """
    images = np.asanyarray(images)  # a memory map stays one
    expect_images(images, name, size)
    images = images.reshape(*images.shape[:3], 1)
    if images.dtype != np.uint8:
        images = _finite(images, name)
        if images.size and not (images.min() >= 0 and images.max() <= 1):
            raise UserError(
                f"{name}: values from {images.min():g} to {images.max():g}, expected "
                f"{_PIXELS}"
            )
    return images


def check_latents(
    latents: np.ndarray, latent_dim: int, name: str = "latents"
) -> np.ndarray:
    """Latents as float32 `[N, latent_dim]`, native byte order.

    Raises:
      UserError: shape or type is wrong, or a value is not finite.
    """
    latents = np.asanyarray(latents)
    expect_latents(latents, latent_dim, name)
    return _finite(latents, name)


def expect_images(
    array: np.ndarray, name: str, size: tuple[int, int] | None = None
) -> None:
    """Raises `UserError` if shape or type cannot be those of images; reads no value."""
    if array.ndim == 4 and array.shape[3] in (3, 4):
        raise UserError(
            f"{name}: colour images: shape {array.shape}, but only one channel is "
            "taken; make them gray"
        )
    if array.ndim not in (3, 4) or array.shape[3:] not in ((), (1,)):
        sides = "{}, {}".format(*(size or ("height", "width")))
        raise UserError(
            f"{name}: shape {array.shape}, expected [N, {sides}, 1] or [N, {sides}]"
        )
    found = array.shape[1:3]
    if size not in (None, found):
        raise UserError(
            f"{name}: {format_size(found)} pixels, but the images that trained have "
            f"{format_size(size)}"
        )
    if not allowed_size(found):
        raise UserError(
            f"{name}: {format_size(found)} pixels, expected an even height and width "
            f"from {SIDES[0]} to {SIDES[-1]}"
        )
    if array.dtype != np.uint8:
        _expect_floats(array, name, _PIXELS)


def allowed_size(size: Any) -> bool:
    """Whether a list or tuple from anywhere is a height and a width in `SIDES`."""
    return (
        isinstance(size, list | tuple)
        and len(size) == 2
        and all(type(side) is int and side in SIDES for side in size)
    )


def format_size(size: tuple[int, int]) -> str:
    """Height and width as people write them: 28x28."""
    return f"{size[0]}x{size[1]}"


def expect_latents(array: np.ndarray, latent_dim: int, name: str) -> None:
    """Raises `UserError` if shape or type cannot be those of latents."""
    if array.ndim != 2 or array.shape[1] != latent_dim:
        raise UserError(
            f"{name}: shape {array.shape}, expected [N, {latent_dim}] as this run's "
            "latents have"
        )
    _expect_floats(array, name, "floats")


def _expect_floats(array: np.ndarray, name: str, expected: str) -> None:
    if array.dtype.kind != "f":
        raise UserError(f"{name}: type {array.dtype}, expected {expected}")


def _finite(array: np.ndarray, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise UserError(f"{name}: a value is not finite in float32")
    return array


def write_archive(path: str | os.PathLike, arrays: Mapping[str, npt.ArrayLike]) -> None:
    """Writes a compressed `.npz`.

    Raises:
      UserError: the disk is full or the path cannot be written.
    """
    archive = io.BytesIO()  # a file that cannot be closed would warn from its __del__
    np.savez_compressed(archive, **arrays)
    with files.write_atomically(path) as temporary:
        temporary.write_bytes(archive.getvalue())
