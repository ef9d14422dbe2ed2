"""Images of equal size to streams and back, many blocks at once.

Pixel by pixel in reading order, for all images of a batch together: easy pixels
first pass the gate; those that are not 0, and all hard ones, have their bin coded
and then their place in the bin. Encoder and decoder run the same loop and differ
in where the values come from.
"""

from collections.abc import Callable

import numpy as np

from emnist_jax.codec import context
from emnist_jax.codec.integer_model import IntegerModel
from emnist_jax.codec.lanes import Grid, Reader, Writer
from emnist_jax.codec.pixel_model import BIN_OF_VALUE, BIN_STARTS, PLACE_IN_BIN
from emnist_jax.codec.rans import TOTAL
from emnist_jax.codec.rounding import steps


def _code(
    model: IntegerModel,
    grid: Grid,
    padded: np.ndarray,
    take: Callable,
    max_error: int,
    report: Callable[[float], None],
) -> None:
    """Runs through all pixels; `padded` [places, ...] is filled on the way."""
    height = padded.shape[1] - context.ROWS
    width = padded.shape[2] - 2 * context.COLUMNS
    step_of_value, value_of_step = steps(max_error)
    is_ink = (step_of_value > 0).astype(np.intp)
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
                table = np.stack([zero, np.full_like(zero, TOTAL)], axis=1)
                escaped = take(easy, table, row, column, is_ink)
                hard[easy[escaped > 0]] = True
            hard = np.flatnonzero(hard)
            if len(hard):
                place = np.full(len(hard), row), np.full(len(hard), column)
                hidden, coarse = model.coarse(window[hard], *place)
                if max_error:
                    table = model.values(hidden, coarse, max_error)
                    found = take(hard, table, row, column, step_of_value)
                    value = value_of_step[found]
                else:
                    bins = take(hard, coarse, row, column, BIN_OF_VALUE)
                    fine = model.fine(hidden, bins)
                    inside = take(hard, fine, row, column, PLACE_IN_BIN)
                    value = BIN_STARTS[bins] + inside
                padded[hard, row + context.ROWS, column + context.COLUMNS] = value
        report(1 / height)


def _empty(grid: Grid, height: int, width: int) -> np.ndarray:
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
    grid = Grid([len(block) for block in blocks])
    height, width = blocks[0].shape[1:]
    symbols = np.zeros((len(grid.exists), height, width), np.uint8)
    symbols[grid.exists] = np.concatenate(blocks)
    writer = Writer(grid, symbols)
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
    grid = Grid(counts)
    reader = Reader(grid, streams)
    padded = _empty(grid, height, width)
    _code(model, grid, padded, reader.take, max_error, report)
    reader.finish()
    pixels = _inner(padded)[grid.exists]
    return np.split(pixels, np.cumsum(counts)[:-1])
