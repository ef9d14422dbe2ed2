"""A prepared data set on disk: plain `.npy` files and a manifest to check them by."""

import pathlib
import zlib

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.storage import files
from emnist_jax.storage.arrays import save_array

_FORMAT = 1
_MANIFEST = "manifest.json"


class Missing(Exception):
    """Nothing has been prepared in this folder."""


class Damaged(Exception):
    """What was prepared is not what the manifest says; the message says how."""


def write(folder: pathlib.Path, arrays: dict[str, np.ndarray], facts: dict) -> None:
    """Writes `arrays` as `<name>.npy`, and the manifest last.

    Args:
      folder: an existing folder.
      arrays: the arrays by name.
      facts: JSON-able values to keep in the manifest and to expect in `read`.
    """
    for name, array in arrays.items():
        save_array(folder / f"{name}.npy", array)
    files.write_json(
        folder / _MANIFEST,
        {"format": _FORMAT, **facts, "arrays": describe(arrays)},
    )


def read(folder: pathlib.Path, facts: dict) -> dict[str, np.ndarray]:
    """Reads every array and compares it with the manifest.

    Raises:
      Missing: there is no such folder.
      Damaged: a file is missing, truncated or altered, or `facts` differ.
    """
    manifest = read_manifest(folder, facts)
    arrays = {}
    for name in manifest["arrays"]:
        try:
            with open(folder / f"{name}.npy", "rb") as file:
                arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
        except Exception as error:  # a damaged header can raise nearly anything
            raise Damaged(f"{name}.npy: {error}") from error
    check(arrays, manifest)
    return arrays


def read_manifest(folder: pathlib.Path, facts: dict) -> dict:
    """Reads the manifest alone; raises as `read` does."""
    if not folder.is_dir():
        raise Missing
    try:
        manifest = files.read_json(folder / _MANIFEST)
    except UserError as error:
        raise Damaged(str(error)) from error
    expected = {"format": _FORMAT, **facts}
    if {name: manifest.get(name) for name in expected} != expected or not isinstance(
        manifest.get("arrays"), dict
    ):
        raise Damaged(f"{_MANIFEST} is of another format or data set")
    return manifest


def check(arrays: dict[str, np.ndarray], manifest: dict) -> None:
    """Raises `Damaged` unless the manifest describes exactly these arrays."""
    found = describe(arrays)
    for name in found.keys() | manifest["arrays"].keys():
        if found.get(name) != manifest["arrays"].get(name):
            raise Damaged(f"{name}.npy is not what {_MANIFEST} says")


def describe(arrays: dict[str, np.ndarray]) -> dict[str, dict]:
    """Returns shape, type and CRC-32 of the content of each array."""
    return {
        name: {
            "shape": list(array.shape),
            "dtype": str(array.dtype),
            "crc32": zlib.crc32(np.ascontiguousarray(array)),
        }
        for name, array in arrays.items()
    }
