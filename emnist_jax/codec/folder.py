"""Opening what a path leads to: a compressed file, or a folder of them as one array."""

import functools
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.codec import indexing, mapping, reader
from emnist_jax.codec.blocks import Report, silent
from emnist_jax.data import zarr_store

ENDING = ".ejx"
MOST_OPEN = 16  # files of a folder; each keeps decoded blocks


class CompressedFolder(indexing.ImageArray):
    """The images of all compressed files in a folder, in the order of their names.

    It pickles as its path, and may be read in threads and in forked processes.

    Attributes:
      shape: of the whole array.
    """

    def __init__(self, path: str | os.PathLike, *, model=None, run=None):
        """Reads the heads of all files; options as for `reader.open_file`.

        Raises:
          UserError: there is none, one cannot be read, or sizes of images differ.
        """
        self._name, self._options = os.path.abspath(path), {"model": model, "run": run}
        self._paths = _files(path)
        shapes = [mapping.read_head(path)[0].shape for path in self._paths]
        for other, shape in zip(self._paths, shapes, strict=True):
            if shape[1:] != shapes[0][1:]:
                raise UserError(
                    f"{other} holds images {shape[1:]}, {self._paths[0]} "
                    f"{shapes[0][1:]}: a folder needs one size"
                )
        self._counts = [shape[0] for shape in shapes]
        self._firsts = np.cumsum([0, *self._counts[:-1]])
        self.shape = (sum(self._counts), *shapes[0][1:])
        self._held: dict[int, reader.CompressedImages] = {}  # the last used last

    def __reduce__(self) -> tuple:
        return functools.partial(CompressedFolder, self._name, **self._options), ()

    def close(self) -> None:
        """Lets go of the files."""
        self._held.clear()

    @property
    def promise(self) -> tuple[int, int]:
        """Mode and parameter of the file that promises least."""
        return max(self._file(number).promise for number in range(len(self._paths)))

    @property
    def labels(self) -> np.ndarray | None:
        """int64 [N], if all files keep labels; raises `UserError` if damaged."""
        found = [self._file(number).labels for number in range(len(self._paths))]
        return None if any(part is None for part in found) else np.concatenate(found)

    @property
    def names(self) -> list[str] | None:
        """Names of the images, if all files keep names; two files may hold the same."""
        found = [self._file(number).names for number in range(len(self._paths))]
        return None if any(part is None for part in found) else sum(found, [])

    def one(self, wanted: int) -> np.ndarray:
        """One image; threads may call this at once."""
        (number,) = indexing.by_block(np.array([wanted]), self._firsts)
        return self._file(number).one(int(wanted - self._firsts[number]))

    def gather(self, wanted: np.ndarray) -> np.ndarray:
        """Images int64 [...] in any order, [..., *image]."""
        flat = wanted.reshape(-1)
        found = np.empty((len(flat), *self.shape[1:]), self.dtype)
        for number, places in indexing.by_block(flat, self._firsts).items():
            rows = flat[places] - self._firsts[number]
            found[places] = self._file(number).gather(rows)
        return found.reshape(*wanted.shape, *self.shape[1:])

    def pieces(
        self, start: int = 0, stop: int | None = None, report: Report = silent
    ) -> Iterator[np.ndarray]:
        """Yields the images from `start` to `stop` in order, a few blocks at a time."""
        stop = len(self) if stop is None else min(stop, len(self))
        sizes = zip(self._firsts.tolist(), self._counts, strict=True)
        for number, (first, count) in enumerate(sizes):
            low, high = max(start - first, 0), min(stop - first, count)
            if low < high:
                yield from self._file(number).pieces(low, high, report)

    def _file(self, number: int) -> reader.CompressedImages:
        """An open file; what was not used for long is let go of, not closed."""
        file = self._held.pop(number, None)
        if file is None:
            file = reader.open_file(self._paths[number], **self._options)
            if file.shape != (self._counts[number], *self.shape[1:]):
                raise UserError(f"{self._paths[number]} has changed: open it again")
        self._held[number] = file  # the last one again
        for oldest in list(self._held)[:-MOST_OPEN]:
            self._held.pop(oldest, None)
        return file


def _files(folder: str | os.PathLike) -> list[pathlib.Path]:
    try:
        found = sorted(pathlib.Path(folder).resolve().iterdir())
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}") from error
    paths = [
        path
        for path in found
        if path.suffix.lower() == ENDING and not path.name.startswith(".")
    ]
    if not paths:
        raise UserError(f"{folder} is a folder without compressed files (*{ENDING})")
    return paths


def open_path(path: str | os.PathLike, *, model=None, run=None) -> indexing.ImageArray:
    """Opens compressed images; they are read and decoded as they are asked for.

    Args:
      path: a compressed file, a folder of them (its *.ejx in the order of names), or
        a zarr array.
      model: a model file, if the pixel model neither ships with the package nor is
        embedded.
      run: for mode `latent`, the trained autoencoder.

    Returns:
      The images; `close` them, or use `with`.

    Raises:
      UserError: it cannot be read, is damaged or foreign, or its model is missing.
    """
    if isinstance(path, str | os.PathLike) and os.path.isdir(path):
        if zarr_store.is_store(path):
            return load_zarr(path).ZarrImages(path)
        return CompressedFolder(path, model=model, run=run)
    return reader.open_file(path, model=model, run=run)


def load_zarr(name: str | os.PathLike):
    """The module that reads and writes zarr; raises `UserError` if that is missing."""
    try:
        from emnist_jax.codec import zarr_images
    except ImportError as error:
        raise UserError(
            f"{name}: zarr arrays need zarr: pip install 'emnist-jax[zarr]'"
        ) from error
    return zarr_images
