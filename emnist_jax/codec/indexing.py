"""What `opened[index]` asks for, in the words of NumPy."""

import operator

import numpy as np


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
