"""Zarr arrays that commands write and read: images, their labels and names beside them.

Without labels and names a store is an array of images; with them a group of the arrays
`images`, `labels` and `names`, as xarray reads it. Install it with the extra [zarr].
"""

import os
from collections.abc import Iterator, Sequence

import numpy as np
import zarr

from emnist_jax.cli.errors import UserError
from emnist_jax.codec import container, indexing, notes, zarr_form
from emnist_jax.codec.blocks import Report, silent
from emnist_jax.codec.chunks import Chunks
from emnist_jax.data import zarr_store
from emnist_jax.storage import files


def write(
    path: str | os.PathLike,
    images: np.ndarray,
    *,
    labels=None,
    names: Sequence[str] | None = None,
    inverted: bool = False,
    report: Report = silent,
    **options,
) -> None:
    """Writes a store as a folder that appears when it is complete.

    Args:
      path: the folder, a new or an empty one.
      images: uint8 [N, height, width] or [N, height, width, 1]; may be a memory map.
      labels: whole numbers [N] to keep with the images.
      names: relative paths of files, all different, to keep with them.
      inverted: whether the images given are 255 minus those to write.
      report: called with numbers of images done.
      **options: those of `zarr_form.create`.

    Raises:
      UserError: an argument is wrong, or the folder is taken.
    """
    notes.pack(len(images), labels, names)  # raises if they are wrong
    with files.write_folder(path) as folder:
        kept = {"labels": labels, "names": names}
        kept = {name: values for name, values in kept.items() if values is not None}
        array = zarr_form.create(
            folder / "images" if kept else folder, images.shape, **options
        )
        for first in range(0, len(images), array.chunks[0]):
            part = images[first : first + array.chunks[0]]
            array[first : first + len(part)] = np.invert(part) if inverted else part
            report(len(part))
        if kept:
            group = zarr.create_group(folder)
            for name, values in kept.items():
                _keep(group, name, values)


def _keep(group: zarr.Group, name: str, values) -> None:
    values = np.asarray(values, object if name == "names" else np.int64)
    array = group.create_array(
        name,
        shape=values.shape,
        dtype="string" if name == "names" else "int64",
        chunks=(max(1, min(len(values), 1 << 16)),),
        dimension_names=zarr_form.DIMENSIONS[:1],
    )
    array[:] = values


class ZarrImages(indexing.ImageArray):
    """The images of a store, of any codec; it pickles as its path.

    Attributes:
      shape: of the whole array.
      promise: mode and largest error of a pixel, as in a file's head.
      labels: int64 [N], or None.
      names: relative paths, one an image, or None; all are checked.
    """

    def __init__(self, path: str | os.PathLike):
        """Reads the metadata, labels and names.

        Raises:
          UserError: they cannot be read, or are none of images.
        """
        self._name = os.path.abspath(path)
        try:
            self._array, self.labels, self.names = zarr_store.open_store(path)
            zarr_form.check(self._array.dtype, self._array.shape, str(path))
            if self.labels is not None:
                self.labels = self.labels.astype(np.int64)
        except UserError:
            raise
        except Exception as error:  # damaged metadata can raise nearly anything
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path} is no zarr array of images: {reason}") from error
        if self.names is not None:
            notes.check_names(self.names, str(path))
        self.shape = self._array.shape

    @property
    def promise(self) -> tuple[int, int]:
        """Mode and parameter, as in the head of a file."""
        coders = [*self._array.compressors, self._array.serializer]
        coders += getattr(self._array.serializer, "codecs", ())  # of a shard
        for used in (getattr(coder, "chunks", None) for coder in coders):
            if isinstance(used, Chunks):
                return used.promise
        return container.LOSSLESS, 0

    def __reduce__(self) -> tuple:
        return ZarrImages, (self._name,)

    def one(self, wanted: int) -> np.ndarray:
        """One image."""
        return self._array[wanted]

    def gather(self, wanted: np.ndarray) -> np.ndarray:
        """Images int64 [...] in any order, [..., *image]."""
        found = self._array.oindex[wanted.reshape(-1)]
        return found.reshape(*wanted.shape, *self.shape[1:])

    def pieces(
        self, start: int = 0, stop: int | None = None, report: Report = silent
    ) -> Iterator[np.ndarray]:
        """Yields the images from `start` to `stop` in order, a few chunks at a time."""
        stop = len(self) if stop is None else min(stop, len(self))
        step = zarr_store.rows_at_once(self._array)
        while start < stop:
            end = min(stop, (start // step + 1) * step)
            piece = self._array[start:end]
            report(len(piece))
            yield piece
            start = end
