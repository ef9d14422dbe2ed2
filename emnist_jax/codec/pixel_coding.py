"""Images of equal size to streams and back, many blocks at once.

Pixel by pixel in reading order, for all images of a batch together: easy pixels
first pass the gate; those that are not 0, and all hard ones, have their bin coded
and then their place in the bin. Encoder and decoder run the same loop and differ
in where the values come from.
"""

import math
from collections.abc import Callable

import numpy as np

from emnist_jax.codec import context, rans
from emnist_jax.codec.integer_model import IntegerModel
from emnist_jax.codec.pixel_model import BIN_OF_VALUE, BIN_STARTS, PLACE_IN_BIN

MOST_LANES = 64
IMAGES_A_LANE = 16  # or more; a lane's state costs about 3 bytes


def lanes_of(images: int) -> int:
    """Number of lanes of a block of `images`."""
    return min(MOST_LANES, max(1, images // IMAGES_A_LANE))


class _Grid:
    """Where the images of a batch sit: blocks x rounds x lanes, some places empty."""

    def __init__(self, counts: list[int]):
        self.lanes = lanes_of(counts[0])
        self.rounds = math.ceil(max(counts) / self.lanes)
        size = self.rounds * self.lanes
        self.exists = np.arange(size)[None] < np.array(counts)[:, None]
        self.exists = self.exists.reshape(-1)  # [places]
        self.shape = (len(counts), self.rounds, self.lanes)

    def by_round(self, values: np.ndarray) -> np.ndarray:
        """[places] to [rounds, blocks, lanes]."""
        return values.reshape(self.shape).swapaxes(0, 1)


class _Writer:
    """Knows the pixels and notes their intervals."""

    def __init__(self, grid: _Grid, symbols: np.ndarray):
        self._grid, self._symbols = grid, symbols  # uint8 [places, height, width]
        self._start, self._frequency = [], []

    def take(self, places, cumulative, row, column, symbol_of) -> np.ndarray:
        symbols = symbol_of[self._symbols[places, row, column]]
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
        return rans.encode(np.concatenate(self._start), np.concatenate(self._frequency))


class _Reader:
    """Takes the pixels from streams."""

    def __init__(self, grid: _Grid, streams: list[bytes]):
        self._grid = grid
        self._decoder = rans.Decoder(streams, grid.lanes)

    def take(self, places, cumulative, row, column, symbol_of) -> np.ndarray:
        del row, column, symbol_of
        count, symbols = cumulative.shape
        # One more line for places that sit out: the whole range is symbol 0.
        table = np.zeros((count + 1, symbols + 1), np.uint32)
        table[:count, 1:] = cumulative
        table[count, 1:] = rans.TOTAL
        line = np.full(len(self._grid.exists), count)
        line[places] = np.arange(count)
        found = np.empty(self._grid.shape, np.intp)
        for round_, lines in enumerate(self._grid.by_round(line)):
            if lines.min() == count:
                continue
            bounds = table[lines]  # [blocks, lanes, symbols + 1]
            inside = bounds[..., 1:] <= self._decoder.slots()[..., None]
            symbol = inside.sum(axis=-1)
            found[:, round_] = symbol
            both = np.take_along_axis(
                bounds, np.stack([symbol, symbol + 1], axis=-1), axis=-1
            )
            self._decoder.advance(both[..., 0], both[..., 1] - both[..., 0])
        return found.reshape(-1)[places]

    def finish(self) -> None:
        self._decoder.finish()


def _code(
    model: IntegerModel,
    grid: _Grid,
    padded: np.ndarray,
    take: Callable,
    max_error: int,
    report: Callable[[float], None],
) -> None:
    """Runs through all pixels; `padded` [places, ...] is filled on the way."""
    height = padded.shape[1] - context.ROWS
    width = padded.shape[2] - 2 * context.COLUMNS
    step = 2 * max_error + 1
    step_of = (np.arange(256) + max_error) // step
    value_of_step = np.minimum(np.arange(256) * step, 255)
    is_ink = (step_of > 0).astype(np.intp)
    windows = np.lib.stride_tricks.sliding_window_view(
        padded, (context.ROWS + 1, context.WINDOW), axis=(1, 2)
    )
    for row in range(height):
        for column in range(width):
            window = windows[:, row, column].reshape(len(padded), -1)
            window = window[:, : context.NEIGHBOURS]
            ink = window[:, list(context.NEAREST)].any(axis=1)
            hard = ink & grid.exists
            easy = np.flatnonzero(~ink & grid.exists)
            if len(easy):
                place = np.full(len(easy), row), np.full(len(easy), column)
                zero = model.gate(window[easy], *place)
                table = np.stack([zero, np.full_like(zero, rans.TOTAL)], axis=1)
                escaped = take(easy, table, row, column, is_ink)
                hard[easy[escaped > 0]] = True
            hard = np.flatnonzero(hard)
            if len(hard):
                place = np.full(len(hard), row), np.full(len(hard), column)
                hidden, coarse = model.coarse(window[hard], *place)
                if max_error:
                    table = model.values(hidden, coarse, max_error)
                    found = take(hard, table, row, column, step_of)
                    value = value_of_step[found]
                else:
                    bins = take(hard, coarse, row, column, BIN_OF_VALUE)
                    fine = model.fine(hidden, bins)
                    inside = take(hard, fine, row, column, PLACE_IN_BIN)
                    value = BIN_STARTS[bins] + inside
                padded[hard, row + context.ROWS, column + context.COLUMNS] = value
        report(1 / height)


def _empty(grid: _Grid, height: int, width: int) -> np.ndarray:
    return context.pad(np.zeros((len(grid.exists), height, width), np.uint8))


def _inner(padded: np.ndarray) -> np.ndarray:
    return padded[:, context.ROWS :, context.COLUMNS : -context.COLUMNS]


def encode(
    model: IntegerModel,
    blocks: list[np.ndarray],
    max_error: int = 0,
    report: Callable[[float], None] = lambda share: None,
) -> list[bytes]:
    """Codes blocks of images that have the same number of lanes.

    Args:
      model: the model to code with.
      blocks: uint8 [n, height, width] each.
      max_error: how far decoded pixels may be off.
      report: called with the share of the work done since the last call.

    Returns:
      One stream a block.
    """
    grid = _Grid([len(block) for block in blocks])
    height, width = blocks[0].shape[1:]
    symbols = np.zeros((len(grid.exists), height, width), np.uint8)
    symbols[grid.exists] = np.concatenate(blocks)
    writer = _Writer(grid, symbols)
    padded = _empty(grid, height, width)
    _code(model, grid, padded, writer.take, max_error, report)
    return writer.streams()


def decode(
    model: IntegerModel,
    streams: list[bytes],
    counts: list[int],
    height: int,
    width: int,
    max_error: int = 0,
    report: Callable[[float], None] = lambda share: None,
) -> list[np.ndarray]:
    """Decodes what `encode` returned.

    Args:
      model: the same model.
      streams: one a block.
      counts: number of images in each block; all have the same number of lanes.
      height: of the images.
      width: of the images.
      max_error: as given to `encode`.
      report: called with the share of the work done since the last call.

    Returns:
      uint8 [count, height, width] for each block.

    Raises:
      rans.CorruptStream: a stream is damaged in a way that shows here.
    """
    grid = _Grid(counts)
    reader = _Reader(grid, streams)
    padded = _empty(grid, height, width)
    _code(model, grid, padded, reader.take, max_error, report)
    reader.finish()
    pixels = _inner(padded)[grid.exists]
    return np.split(pixels, np.cumsum(counts)[:-1])
