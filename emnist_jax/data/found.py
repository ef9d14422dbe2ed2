"""What a form of file holds, before its pixels are made what they should be."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

Labels = np.ndarray | list | None


class Found(NamedTuple):
    """Images as they lie in a source, piece by piece.

    Attributes:
      pieces: of images, labels and names each: images of any numeric type
        `[n, H, W]`, `[n, H, W, channels]`, `[n, 1 or 3, H, W]` or `[n, H * W]`;
        labels, numbers or words, and names, or None.
      class_names: what labels mean, where the source is known to.
      transposed: whether rows and columns are exchanged; None where unknown.
    """

    pieces: Iterable[tuple[np.ndarray, Labels, list[str] | None]]
    class_names: tuple[str, ...] = ()
    transposed: bool | None = None
