"""The pixel model in exact integers: what files are coded with.

docs/codec_format.md describes the arithmetic. `native` has it for CPUs; here it is
called with JAX.
"""

import functools

import numpy as np

from emnist_jax.codec.integer_form import PixelModelConfig, check_exact
from emnist_jax.codec.rans import TOTAL
from emnist_jax.codec.values import BINS

SMALLEST_PIECE = 32  # rows of the smallest compiled program


def _piece_size(count: int) -> int:
    """The compiled size for `count` rows: a power of two, or 1.5 times one."""
    size = SMALLEST_PIECE
    while size < count:
        size *= 2
    return size * 3 // 4 if size >= 512 and size * 3 // 4 >= count else size


def _padded(rows: np.ndarray) -> np.ndarray:
    size = _piece_size(len(rows))
    padded = np.zeros((size, *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    return padded


class IntegerModel:
    """Exact frequencies of pixels.

    Attributes:
      config: the model's sizes.
      arrays: its integers, as in the model file.
    """

    def __init__(self, config: PixelModelConfig, arrays: dict[str, np.ndarray]):
        """Takes integers as `quantise` returns them.

        Raises:
          UserError: sums could leave the range that float32 holds exactly.
        """
        self.config, self.arrays = config, arrays
        check_exact(arrays, config)

    @functools.cached_property
    def _network(self):
        from emnist_jax.codec import integer_network  # JAX takes a second to import

        return integer_network

    @functools.cached_property
    def _operands(self) -> dict:
        return self._network.operands_of(self.arrays, self.config)

    def _place(self, row: np.ndarray, column: np.ndarray) -> tuple:
        """Rows and columns past the last known one count as that one."""
        row = np.minimum(row, self.config.height - 1).astype(np.int32)
        column = np.minimum(column, self.config.columns - 1).astype(np.int32)
        return _padded(row), _padded(column)

    def gate(self, contexts, row, column) -> np.ndarray:
        """Frequency of 0 for easy pixels.

        Args:
          contexts: uint8 [n, 112].
          row: int [n].
          column: int [n].

        Returns:
          int32 [n], 1..65535 of 65536.
        """
        place = self._place(row, column)
        found = self._network.gate(self._operands, 1, _padded(contexts), *place)
        return np.asarray(found)[: len(contexts)]

    def coarse(self, contexts, row, column) -> tuple:
        """Features of pixels (for `fine` and `values`) and of their bins.

        Args:
          contexts: uint8 [n, 112].
          row: int [n].
          column: int [n].

        Returns:
          float32 [n or more, width] and cumulative frequencies int32 [n, 22].
        """
        place = self._place(row, column)
        blocks = self.config.blocks
        found = self._network.coarse(self._operands, blocks, _padded(contexts), *place)
        return found[0], np.asarray(found[1])[: len(contexts)]

    def fine(self, hidden, bins: np.ndarray) -> np.ndarray:
        """Cumulative frequencies of the places in a bin, int32 [n, 16].

        Args:
          hidden: from `coarse`, for the same pixels.
          bins: int [n].
        """
        padded = np.zeros(len(hidden), np.int32)
        padded[: len(bins)] = bins
        return np.asarray(self._network.fine(self._operands, hidden, padded))[
            : len(bins)
        ]

    def values(
        self, hidden, coarse: np.ndarray, max_error: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cumulative frequencies of near-lossless spans.

        Args:
          hidden: from `coarse`, for the same pixels.
          coarse: likewise.
          max_error: 1..127.

        Returns:
          int32 [n, spans], the index of the phase, int [n] (see `values.Spans`), and
          the mean value in each span, int32 [n, spans].
        """
        table = np.full((len(hidden), BINS), TOTAL, np.int32)
        table[: len(coarse)] = coarse
        found = self._network.values(self._operands, max_error, hidden, table)
        return tuple(np.asarray(array)[: len(coarse)] for array in found)
