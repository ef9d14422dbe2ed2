"""Images of equal size to streams and back, many blocks at once.

`native` does this in machine code. What is here does it with JAX and NumPy: where there
is no LLVM, with `EMNIST_JAX_CPU_LAYERS=0` (on accelerators), and for tests to compare.

Pixel by pixel in reading order, for all images of a batch together: easy pixels
first pass the gate; those that are not 0, and all hard ones, have their bin coded
and then their place in the bin or, near-lossless, the span they lie in. Encoder and
decoder run the same loop and differ in where the values come from.
"""

import functools
from collections.abc import Callable

import numpy as np

from emnist_jax import cpu
from emnist_jax.codec import context
from emnist_jax.codec.integer_model import IntegerModel
from emnist_jax.codec.rans import TOTAL, Grid, Reader, Writer
from emnist_jax.codec.values import BIN_OF_VALUE, BIN_STARTS, PLACE_IN_BIN, spans

_unusable = set()  # (encodes, lossy) whose machine code does not work here


def _native(encodes: bool, max_error: int):
    """`native` for CPUs; None where JAX is to do its work."""
    if not cpu.wanted() or (encodes, max_error > 0) in _unusable:
        return None
    try:
        from emnist_jax.codec import native

        native.prepared(encodes, max_error)
    except Exception as error:  # an LLVM that cannot be loaded, say
        if not _unusable:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            cpu.warn(
                f"the codec's machine code does not work here ({reason}); JAX is used, "
                "which is slower"
            )
        _unusable.add((encodes, max_error > 0))
        return None
    return native


def _bin_and_place(model, take: Callable, hidden, coarse) -> np.ndarray:
    """Lossless: takes the bin, then the place in it; returns the values."""
    bins = take(cumulative=coarse, symbols_of=BIN_OF_VALUE.__getitem__)
    fine = model.fine(hidden, bins)
    inside = take(cumulative=fine, symbols_of=PLACE_IN_BIN.__getitem__)
    return BIN_STARTS[bins] + inside


def _span(max_error: int) -> Callable:
    """Near-lossless: a function that takes the span and returns its middle."""
    cut = spans(max_error)

    def take_value(model, take: Callable, hidden, coarse) -> np.ndarray:
        table, phase = model.values(hidden, coarse, max_error)
        found = take(
            cumulative=table, symbols_of=lambda values: cut.of_value[phase, values]
        )
        return cut.value[phase, found]

    return take_value


def _code(
    model: IntegerModel,
    grid: Grid,
    padded: np.ndarray,
    take: Callable,
    max_error: int,
    report: Callable[[float], None],
) -> None:
    """Runs through all pixels; `padded` [places, ...] is filled on the way."""
    from emnist_jax.devices import processes  # loads JAX

    processes.check_fork()
    take_value = _span(max_error) if max_error else _bin_and_place
    height = padded.shape[1] - context.ROWS
    width = padded.shape[2] - 2 * context.COLUMNS
    windows = np.lib.stride_tricks.sliding_window_view(
        padded, (context.ROWS + 1, context.WINDOW), axis=(1, 2)
    )

    def is_ink(values: np.ndarray) -> np.ndarray:
        return values > max_error

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
                here = functools.partial(take, hard, row=row, column=column)
                value = take_value(model, here, hidden, coarse)
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
) -> tuple[list[bytes], np.ndarray]:
    """Codes blocks of images that have the same number of lanes.

    Args:
      model: the model to code with.
      blocks: uint8 [n, height, width] each.
      max_error: how far decoded pixels may be off.
      report: called with the share of the work done since the last call.

    Returns:
      One stream a block, and what decoding all of them gives, uint8 [N, height,
      width].
    """
    if native := _native(True, max_error):
        return native.encode(model, blocks, max_error, report)
    grid = Grid([len(block) for block in blocks])
    height, width = blocks[0].shape[1:]
    symbols = np.zeros((len(grid.exists), height, width), np.uint8)
    symbols[grid.exists] = np.concatenate(blocks)
    writer = Writer(grid, symbols)
    padded = _empty(grid, height, width)
    _code(model, grid, padded, writer.take, max_error, report)
    return writer.streams(), _inner(padded)[grid.exists]


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
    if native := _native(False, max_error):
        shape = height, width
        return native.decode(model, streams, counts, shape, max_error, report)
    grid = Grid(counts)
    reader = Reader(grid, streams)
    padded = _empty(grid, height, width)
    _code(model, grid, padded, reader.take, max_error, report)
    reader.finish()
    pixels = _inner(padded)[grid.exists]
    return np.split(pixels, np.cumsum(counts)[:-1])
