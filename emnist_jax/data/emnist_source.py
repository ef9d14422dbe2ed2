"""EMNIST in whatever form it was downloaded: told by the names of its files.

NIST's `gzip.zip` and `matlab.zip`, either unpacked, torchvision's folder, one of
`emnist-balanced.mat` and Kaggle's `emnist-balanced-train.csv`, and Kaggle's zip.
"""

import contextlib
import os
import pathlib
import sys
import zipfile
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.data import archive, idx, matlab, orientation, tables
from emnist_jax.data.found import Found
from emnist_jax.data.values import Options
from emnist_jax.storage import files, zipped
from emnist_jax.storage.arrays import DEFLATE_RATIO

Opener = Callable[[], contextlib.AbstractContextManager[tuple[BinaryIO, int]]]


def knows(path: pathlib.Path, head: bytes, inside: list[str]) -> bool:
    """Whether a folder or zip holds EMNIST's files."""
    if path.is_dir():
        return any(map(_is_ours, _in_folder(path)))
    return any(_is_ours(pathlib.PurePosixPath(name).name) for name in inside)


def read(path: pathlib.Path, chosen: str | None, options: Options) -> Found:
    """A part of the variant `chosen`, of the only one or of balanced."""
    members = _members(path)
    variants = sorted({v for v in map(tables.emnist_variant, members) if v})
    variant = chosen or (variants[0] if len(variants) == 1 else "balanced")
    if variant not in variants:
        raise UserError(f"{path} holds {', '.join(variants)}, not {variant}")
    images, labels = _raw(members, variant, options.split or "test", str(path))
    names = archive.VARIANTS[variant].class_names
    return Found([(images, labels, None)], names, transposed=True)


def read_split(
    path: str | os.PathLike, variant: str, part: str
) -> tuple[np.ndarray, np.ndarray]:
    """Reads one split, upright.

    Args:
      path: any of the forms that the module's docstring names.
      variant: a key of `archive.VARIANTS`.
      part: `train` or `test`.

    Returns:
      (uint8 [N, 28, 28, 1] images, int32 [N] labels), in the file's order.

    Raises:
      UserError: the file is damaged, is not EMNIST's, or contradicts itself.
    """
    path = pathlib.Path(path)
    if is_nists(path):
        return archive.read_split(path, variant, part)
    try:
        images, labels = _raw(_members(path), variant, part, str(path))
        archive.check_split(images, labels, variant, part)
    except Exception as error:  # a damaged file can raise nearly anything
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"--emnist_archive={path} is not usable: {reason}") from error
    upright = images.transpose(0, 2, 1)
    if orientation.looks_transposed(orientation.sample(upright)):
        print(
            f"warning: --emnist_archive={path}: its images are upright already, which "
            "NIST's are not, and stay as they are",
            file=sys.stderr,
        )
        upright = images
    return np.ascontiguousarray(upright)[..., np.newaxis], labels.astype(np.int32)


def is_nists(path: pathlib.Path) -> bool:
    """Whether a file is to be read as NIST's `gzip.zip`, as all but other forms are."""
    if path.is_dir() or path.suffix.lower() in (".csv", ".mat"):
        return False
    try:
        with files.open_regular(path) as file, zipfile.ZipFile(file) as archive_file:
            names = archive_file.namelist()
    except Exception:  # is told when it is read
        return True
    return not any(name.endswith((".csv", ".mat")) for name in names)


def parts_of(path: pathlib.Path, variant: str) -> list[pathlib.Path]:
    """The files that a copy of a variant consists of: itself, or some of a folder."""
    if path.is_dir() or path.suffix.lower() in (".csv", ".mat"):
        folder = path if path.is_dir() else path.parent
        found = _in_folder(folder)
        ours = [n for n in sorted(found) if tables.emnist_variant(n) == variant]
        if not ours:
            raise UserError(
                f"--emnist_archive={path} is not usable: it holds no file of "
                f"emnist-{variant}"
            )
        return [found[name] for name in ours]
    return [path]


def _is_ours(name: str) -> bool:
    ending = name.removesuffix(".gz").endswith(("ubyte", ".mat", ".csv"))
    return ending and tables.emnist_variant(name) is not None


def _in_folder(path: pathlib.Path) -> dict[str, pathlib.Path]:
    """EMNIST's files by name, down to two folders below."""
    patterns = ("*/*/emnist-*", "*/emnist-*", "emnist-*")
    found = [p for pattern in patterns for p in path.glob(pattern)]
    return {p.name: p for p in found if _is_ours(p.name)}


def _members(path: pathlib.Path) -> dict[str, Opener]:
    """EMNIST's files in a folder or zip, or beside a file, each with what opens it."""
    if path.is_dir() or path.suffix.lower() in (".csv", ".mat"):
        folder = path if path.is_dir() else path.parent
        return {n: _file_opener(p) for n, p in _in_folder(folder).items()}
    with files.open_regular(path) as file, zipfile.ZipFile(file) as archive_file:
        names = [n for n in archive_file.namelist() if _is_ours(n.rpartition("/")[2])]
    return {n.rpartition("/")[2]: _zip_opener(path, n) for n in names}


def _file_opener(path: pathlib.Path) -> Opener:
    @contextlib.contextmanager
    def opened() -> Iterator[tuple[BinaryIO, int]]:
        with files.open_regular(path) as file:
            yield file, os.fstat(file.fileno()).st_size

    return opened


def _zip_opener(path: pathlib.Path, name: str) -> Opener:
    @contextlib.contextmanager
    def opened() -> Iterator[tuple[BinaryIO, int]]:
        with files.open_regular(path) as file, zipfile.ZipFile(file) as archive_file:
            most = archive.MOST_BYTES * (4 if name.endswith(".csv") else 1)
            most = min(most, DEFLATE_RATIO * os.fstat(file.fileno()).st_size)
            info = zipped.member(archive_file, name, most)
            with archive_file.open(info) as member:
                yield member, info.file_size

    return opened


def _raw(
    members: dict[str, Opener], variant: str, part: str, path: str
) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [N, 28, 28] images as they lie in the files, and their labels."""
    stem = f"emnist-{variant}-{part}"
    for gz in ("", ".gz"):
        if (name := f"{stem}-images-idx3-ubyte{gz}") in members:
            with members[name]() as (file, held):
                images = idx.read_stream(file, held, archive.MOST_BYTES)
            with members[name.replace("images-idx3", "labels-idx1")]() as (file, held):
                return images, idx.read_stream(file, held, archive.MOST_BYTES)
    if (name := f"emnist-{variant}.mat") in members:
        with members[name]() as (file, _):
            images, labels = matlab.read_part(file, part, f"{path}:{name}")
    elif (name := f"{stem}.csv") in members:
        with members[name]() as (file, _):
            images, labels = _csv(file)
    else:
        raise ValueError(f"it holds no {part} part of emnist-{variant}")
    return images.reshape(len(images), 28, 28), labels


def _csv(file: BinaryIO) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [N, 784] images and labels of Kaggle's CSV, no more than EMNIST has."""
    images, labels, left = [], [], archive.MOST_BYTES
    for pixels, some, _ in tables.rows_of(file):
        left -= pixels.nbytes
        if some is None or pixels.dtype != np.uint8 or left < 0:
            raise ValueError("it lacks labels, or holds more than EMNIST")
        images.append(pixels)
        labels.append(some)
    return np.concatenate(images), np.concatenate(labels)
