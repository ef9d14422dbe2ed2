"""What `opened[index]` asks for, in the words of NumPy."""

import operator
from collections.abc import Iterator

import numpy as np

from emnist_jax.codec.blocks import Report, silent


class ImageArray:
    """What all arrays of uint8 have in common that are decoded when asked for.

    Such an array has `shape`; `pieces(start, stop, report)`, its images in order;
    `one(index)`, an image; and `gather(wanted)`, images in any order.
    """

    dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        """The same in every process, as Grain's checkpoints want it."""
        return f"{type(self).__name__}({self._name!r}, shape={self.shape})"

    def __enter__(self):
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the files."""

    def __iter__(self) -> Iterator[np.ndarray]:
        for piece in self.pieces():
            yield from piece

    def __array__(self, dtype=None, copy: bool | None = None) -> np.ndarray:
        """Decodes everything, for `np.asarray`."""
        if copy is False:
            raise ValueError("a compressed file is no array without being decoded")
        return self.read().astype(dtype or self.dtype, copy=False)

    def __getitem__(self, index) -> np.ndarray:
        """Decodes images: as from an array; see `split`.

        Each block that is needed is decoded once, and kept for single images.
        """
        wanted, rest = split(index, len(self))
        if isinstance(wanted, int):
            found = self.one(wanted)
            return found[rest] if rest else found
        if isinstance(wanted, range) and wanted.step == 1:
            found = self.read(wanted.start, wanted.stop)
        else:
            found = self.gather(np.asarray(wanted, np.int64))
        return found[(slice(None),) * np.ndim(wanted) + rest] if rest else found

    def __getitems__(self, indices) -> list[np.ndarray]:
        """Images for a batch of PyTorch's `DataLoader`."""
        return list(self[list(indices)])

    def read(
        self, start: int = 0, stop: int | None = None, report: Report = silent
    ) -> np.ndarray:
        """Decodes the images from `start` to `stop`, all by default."""
        stop = len(self) if stop is None else min(stop, len(self))
        found, done = np.empty((max(stop - start, 0), *self.shape[1:]), self.dtype), 0
        for piece in self.pieces(start, stop, report):
            found[done : done + len(piece)] = piece
            done += len(piece)
        return found


def split(index, images: int) -> tuple[int | range | np.ndarray, tuple]:
    """Splits an index into the images it names, and what it asks of each.

    Args:
      index: an integer, a slice, whole numbers, a mask [images], or a tuple that begins
        with one of these and goes on with integers and slices of rows and columns.
      images: how many there are.

    Returns:
      Which image, or a range or int64 array [...] of them; and the rest.

    Raises:
      IndexError: an image that is not there, or another kind of index.
    """
    index = index if isinstance(index, tuple) else (index,)
    first, *rest = index or (...,)
    if first is Ellipsis:
        first, rest = slice(None), [..., *rest]
    if not all(part is Ellipsis or _is_plain(part) for part in rest):
        raise IndexError(f"{rest}: give integers and slices of rows and columns")
    if isinstance(first, slice):
        return range(*first.indices(images)), tuple(rest)
    if _is_plain(first):
        return range(images)[first], tuple(rest)  # IndexError as for any sequence
    chosen = np.asarray(first)
    if chosen.dtype == bool and chosen.shape == (images,):
        return np.flatnonzero(chosen), tuple(rest)
    if not chosen.size and chosen.ndim:
        chosen = chosen.astype(np.int64)
    if chosen.dtype.kind not in "iu" or not chosen.ndim:
        raise IndexError(
            f"index of type {type(first).__name__}: give an integer, a slice, whole "
            f"numbers or a mask of {images} truth values"
        )
    if chosen.size and not -images <= chosen.min() <= chosen.max() < images:
        raise IndexError(f"image {chosen.min()} or {chosen.max()} of {images}")
    return chosen.astype(np.int64) % max(images, 1), tuple(rest)


def _is_plain(part) -> bool:
    """Whether `part` is a slice or an integer."""
    if isinstance(part, slice):
        return True
    try:
        operator.index(part)
    except TypeError:
        return False
    return not isinstance(part, bool | np.bool_) and not np.ndim(part)


def by_block(wanted: np.ndarray, firsts: np.ndarray) -> dict[int, np.ndarray]:
    """Where in `wanted` the images of each block stand.

    Args:
      wanted: int64 [n], images in any order.
      firsts: int64 [blocks], the first image of each.

    Returns:
      Places in `wanted`, by the number of each block that is needed.
    """
    number = np.searchsorted(firsts, wanted, side="right") - 1
    order = np.argsort(number, kind="stable")
    needed, begins = np.unique(number[order], return_index=True)
    return dict(zip(needed.tolist(), np.split(order, begins[1:]), strict=False))
