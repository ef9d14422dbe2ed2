"""Image and latent arrays from outside: checked before anything is computed."""

import os
import pathlib

import numpy as np

from emnist_jax.errors import UserError


def open_array(path: str | os.PathLike) -> np.ndarray:
    """A `.npy` file as a read-only memory map, in any byte and memory order.

    Raises:
      UserError: the file is missing, cut short, of Python objects or not a `.npy`.
    """
    path = pathlib.Path(path)
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }.get(version)
            if read_header is None:
                raise ValueError(f"unknown .npy version {version}")
            shape, _, dtype = read_header(file)
            if dtype.hasobject:
                raise ValueError("it holds pickled Python objects")
            size = dtype.itemsize * int(np.prod(shape, dtype=object))
            if os.fstat(file.fileno()).st_size < file.tell() + size:
                raise ValueError(f"it is cut short: {shape} {dtype} need {size} bytes")
        if size == 0:  # nothing to map
            return np.empty(shape, dtype)
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, SyntaxError, TypeError, EOFError) as error:
        raise UserError(f"{path} is not a NumPy .npy array: {error}") from error


def check_images(images: np.ndarray, name: str = "images") -> np.ndarray:
    """Images as `[N, 28, 28, 1]`, native byte order.

    Args:
      images: `[N, 28, 28, 1]` or `[N, 28, 28]`, uint8, or floats in [0, 1].
      name: flag or file, for errors.

    Raises:
      UserError: shape, type or range is wrong.
    """
    images = np.asanyarray(images)  # a memory map stays one
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[1:] != (28, 28, 1):
        raise UserError(
            f"{name}: shape {images.shape}, expected [N, 28, 28, 1] or [N, 28, 28]"
        )
    if images.dtype != np.uint8:
        images = _check_floats(images, name, "uint8 in 0..255 or floats in 0..1")
        if images.size and not (images.min() >= 0 and images.max() <= 1):
            raise UserError(
                f"{name}: values from {images.min():g} to {images.max():g}, expected "
                "uint8 in 0..255 or floats in 0..1"
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
    if latents.ndim != 2 or latents.shape[1] != latent_dim:
        raise UserError(
            f"{name}: shape {latents.shape}, expected [N, {latent_dim}] as this run's "
            "latents have"
        )
    return _check_floats(latents, name, "floats")


def _check_floats(array: np.ndarray, name: str, expected: str) -> np.ndarray:
    if array.dtype.kind != "f":
        raise UserError(f"{name}: type {array.dtype}, expected {expected}")
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise UserError(f"{name}: a value is not finite, expected {expected}")
    return array
