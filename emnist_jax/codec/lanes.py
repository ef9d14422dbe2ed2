"""Symbols of many images into the lanes of several blocks, and back out.

Each block spreads its images over lanes: image i sits in lane i % lanes and takes
part in round i // lanes. A step codes at most one symbol of every image.
"""

import math

import numpy as np

from emnist_jax.codec import rans

MOST_LANES = 64
IMAGES_A_LANE = 16  # or more; a lane's state costs about 3 bytes


def lanes_of(images: int) -> int:
    """Number of lanes of a block of `images`."""
    return min(MOST_LANES, max(1, images // IMAGES_A_LANE))


class Grid:
    """Where the images of a batch sit: blocks x rounds x lanes, some places empty.

    Attributes:
      lanes: of each block.
      exists: bool [places], which places hold an image.
      shape: blocks, rounds, lanes.
    """

    def __init__(self, counts: list[int]):
        """Takes the number of images in each block; all have as many lanes."""
        self.lanes = lanes_of(counts[0])
        self.rounds = math.ceil(max(counts) / self.lanes)
        size = self.rounds * self.lanes
        self.exists = np.arange(size)[None] < np.array(counts)[:, None]
        self.exists = self.exists.reshape(-1)  # [places]
        self.shape = (len(counts), self.rounds, self.lanes)

    def by_round(self, values: np.ndarray) -> np.ndarray:
        """[places] to [rounds, blocks, lanes]."""
        return values.reshape(self.shape).swapaxes(0, 1)


class Writer:
    """Knows the images' values and notes the intervals of symbols."""

    def __init__(self, grid: Grid, values: np.ndarray):
        """Takes uint8 [places, height, width]."""
        self._grid, self._values = grid, values
        self._start, self._frequency = [], []

    def take(self, places, cumulative, row, column, symbols_of) -> np.ndarray:
        """Codes a symbol of some images.

        Args:
          places: int [n], ascending; whose turn it is.
          cumulative: int [n, symbols], the end of each symbol's interval.
          row: where the values lie that decide the symbols.
          column: likewise.
          symbols_of: from values, one for each of `places`, to symbols.

        Returns:
          int [n], the symbols.
        """
        symbols = symbols_of(self._values[places, row, column]).astype(np.intp)
        index = np.arange(len(places))
        high = cumulative[index, symbols]
        low = np.where(symbols > 0, cumulative[index, symbols - 1], 0)
        start = np.zeros(len(self._grid.exists), np.uint16)
        frequency = np.full(len(self._grid.exists), rans.TOTAL - 1, np.uint16)
        start[places], frequency[places] = low, high - low - 1
        self._start.append(self._grid.by_round(start))
        self._frequency.append(self._grid.by_round(frequency))
        return symbols

    def streams(self) -> list[bytes]:
        """Returns one stream a block."""
        return rans.encode(np.concatenate(self._start), np.concatenate(self._frequency))


class Reader:
    """Takes symbols from streams."""

    def __init__(self, grid: Grid, streams: list[bytes]):
        """Takes one stream a block."""
        self._grid = grid
        self._decoder = rans.Decoder(streams, grid.lanes)

    def take(self, places, cumulative, row, column, symbols_of) -> np.ndarray:
        """Decodes a symbol of some images; arguments and result as `Writer.take`."""
        del row, column, symbols_of
        count, symbols = cumulative.shape
        # One more line for places that sit out: the whole range is symbol 0.
        table = np.zeros((count + 1, symbols + 1), np.uint32)
        table[:count, 1:] = cumulative
        table[count, 1:] = rans.TOTAL
        line = np.full(len(self._grid.exists), count)
        line[places] = np.arange(count)
        flat, width = table.reshape(-1), symbols + 1
        found = np.empty(self._grid.shape, np.intp)
        for round_, lines in enumerate(self._grid.by_round(line)):
            if lines.min() == count:
                continue
            ends = table[lines, 1:]  # [blocks, lanes, symbols]
            symbol = (ends <= self._decoder.slots()[..., None]).sum(axis=-1)
            found[:, round_] = symbol
            at = lines * width + symbol
            start = flat[at]
            self._decoder.advance(start, flat[at + 1] - start)
        return found.reshape(-1)[places]

    def finish(self) -> None:
        """Checks the streams' ends; see `rans.Decoder.finish`."""
        self._decoder.finish()
