"""Images with labels, and subsets that keep equal images together.

The order in which `take` and `hold_out` pick images is that of a hash of their
pixels keyed by the seed. So equal images always stand together, and the choice
depends on the seed and the images alone: not on their order in the file, the
machine, or the version of a random number generator.
"""

import dataclasses
import hashlib

import numpy as np

from emnist_jax.cli.errors import UserError


@dataclasses.dataclass(frozen=True)
class Split:
    """Images of one split, upright, with what is known of each.

    Attributes:
      images: uint8 [N, H, W, 1], 0 is paper and 255 is ink.
      labels: int32 [N], an index into `Dataset.class_names`.
      indices: int64 [N], the row of each image in the source's own order.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray

    def __post_init__(self):
        count = len(self.labels)
        expected = {
            "images": ((count, *self.images.shape[1:3], 1), np.uint8),
            "labels": ((count,), np.int32),
            "indices": ((count,), np.int64),
        }
        for name, (shape, dtype) in expected.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(
                    f"{name} is {array.dtype} {array.shape}, "
                    f"not {np.dtype(dtype)} {shape}"
                )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of every image."""
        return self.images.shape[1:3]

    def select(self, rows: np.ndarray) -> "Split":
        """Returns the images at `rows` (positions in this split), in that order."""
        return Split(self.images[rows], self.labels[rows], self.indices[rows])


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set as it was found.

    Attributes:
      name: the resolved name, `emnist/balanced` or `glyphs`, never `auto`.
      train: the training split.
      test: the test split.
      class_names: what each label means, `class_names[label]`.
      source: JSON-able facts of where the images come from, for `results.json`.
        Always `kind` and `title`; see `emnist.load` and `glyphs.load`.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    source: dict


def take(split: Split, count: int, seed: int, *, flag: str = "count") -> Split:
    """Returns a seeded subset of `count` images, in source order.

    Equal images are taken together; only the last group may be cut to meet
    the count. For one seed a smaller subset is part of every larger one.

    Args:
      split: the images to choose from.
      count: how many, 1 to `len(split)`.
      seed: any integer; another seed gives an unrelated subset.
      flag: what the user calls `count`, for the error.

    Raises:
      UserError: there are not that many images.
    """
    if not 1 <= count <= len(split):
        raise UserError(
            f"{flag}={count} is not possible: the split has {len(split)} images, "
            f"so give 1 to {len(split)}"
        )
    if count == len(split):
        return split
    order, _ = _seeded_order(split, seed, b"take")
    return split.select(np.sort(order[:count]))


def hold_out(
    split: Split, fraction: float, seed: int, *, setting: str | None = None
) -> tuple[Split, Split]:
    """Splits off a seeded share, with equal images never on both sides.

    Args:
      split: the images to divide.
      fraction: share to hold out, between 0 and 1; met as nearly as whole
        groups of equal images allow.
      seed: any integer.
      setting: how the user gave `fraction`, for the error; None is `fraction=...`.

    Returns:
      (the rest, what is held out), both in source order and not empty.

    Raises:
      UserError: the fraction is out of range, or all images are equal.
    """
    setting = setting or f"fraction={fraction}"
    if not 0 < fraction < 1:
        raise UserError(f"{setting} is out of range: give a share in (0, 1)")
    order, group_ends = _seeded_order(split, seed, b"hold_out")
    if len(group_ends) < 2:
        raise UserError(
            f"{setting} cannot be held out of {len(split)} images of which "
            f"{len(group_ends)} are distinct: at least 2 must be"
        )
    candidates = group_ends[:-1]
    cut = candidates[np.argmin(np.abs(candidates - fraction * len(split)))]
    return split.select(np.sort(order[cut:])), split.select(np.sort(order[:cut]))


def _seeded_order(
    split: Split, seed: int, purpose: bytes
) -> tuple[np.ndarray, np.ndarray]:
    """Orders positions by keyed hash of the pixels.

    Returns:
      (positions int64 [N], with equal images adjacent and in source order;
      ends int64 [groups], where each group of equal images ends in them).
    """
    keyed = hashlib.blake2b(
        str(seed).encode(), digest_size=16, person=purpose.ljust(16, b"\0")
    )
    digests = np.empty([len(split), 16], np.uint8)
    for row, image in enumerate(np.ascontiguousarray(split.images)):
        digest = keyed.copy()
        digest.update(image)
        digests[row] = np.frombuffer(digest.digest(), np.uint8)
    words = digests.view(">u8")  # [N, 2], compared as one number of 128 bits
    order = np.lexsort((words[:, 1], words[:, 0]))
    words = words[order]
    changes = np.flatnonzero((words[1:] != words[:-1]).any(axis=1)) + 1
    return order, np.append(changes, len(split))[: len(split)]
