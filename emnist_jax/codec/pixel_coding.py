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
from emnist_jax.codec.values import (
    BIN_OF_VALUE,
    BIN_STARTS,
    COSTS,
    PLACE_IN_BIN,
    spans,
)

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


def _span(max_error: int, weight: int | None) -> Callable:
    """Near-lossless: a function that takes the span and returns what it decodes to."""
    cut = spans(max_error)

    def take_value(model, take: Callable, hidden, coarse) -> np.ndarray:
        table, phase, means = model.values(hidden, coarse, max_error)
        decoded = cut.value[phase] if weight is None else means

        def symbols_of(values: np.ndarray) -> np.ndarray:
            if not weight:
                return cut.of_value[phase, values]
            return _best_span(decoded, table, values, weight)

        found = take(cumulative=table, symbols_of=symbols_of)
        return decoded[np.arange(len(found)), found]

    return take_value


def _best_span(
    decoded: np.ndarray, table: np.ndarray, values: np.ndarray, weight: int
) -> np.ndarray:
    """The spans that cost least, bits and weighted squared error together."""
    frequency = np.diff(table, axis=1, prepend=0)
    off = values.astype(np.int64)[:, None] - decoded
    cost = COSTS[frequency] + weight * off**2
    return np.where(frequency > 0, cost, 1 << 60).argmin(axis=1)


def _is_ink(max_error: int, weight: int | None, zero: np.ndarray, values: np.ndarray):
    """Whether easy pixels are coded as more than 0; `zero` is the frequency of 0."""
    far = values > max_error
    if not weight:
        return far
    saved = COSTS[TOTAL - zero] - COSTS[zero]
    return far & (weight * values.astype(np.int64) ** 2 > saved)


def _code(
    model: IntegerModel,
    grid: Grid,
    padded: np.ndarray,
    take: Callable,
    max_error: int,
    report: Callable[[float], None],
    weight: int | None = None,
) -> None:
    """Runs through all pixels; `padded` [places, ...] is filled on the way."""
    from emnist_jax.devices import processes  # loads JAX

    processes.check_fork()
    take_value = _span(max_error, weight) if max_error else _bin_and_place
    height = padded.shape[1] - context.ROWS
    width = padded.shape[2] - 2 * context.COLUMNS
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
                is_ink = functools.partial(_is_ink, max_error, weight, zero)
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
    weight: int | None = None,
) -> tuple[list[bytes], np.ndarray]:
    """Codes blocks of images that have the same number of lanes.

    Args:
      model: the model to code with.
      blocks: uint8 [n, height, width] each.
      max_error: how far decoded pixels may be off.
      report: called with the share of the work done since the last call.
      weight: None, or for lossy files what a squared error of one grey level is worth
        in 2**-16 bits: a pixel may be off by more than `max_error` where that is
        cheaper; 0 if it costs anything.

    Returns:
      One stream a block, and what decoding all of them gives, uint8 [N, height,
      width].
    """
    if native := _native(True, max_error):
        return native.encode(model, blocks, max_error, report, weight)
    grid = Grid([len(block) for block in blocks])
    height, width = blocks[0].shape[1:]
    symbols = np.zeros((len(grid.exists), height, width), np.uint8)
    symbols[grid.exists] = np.concatenate(blocks)
    writer = Writer(grid, symbols)
    padded = _empty(grid, height, width)
    _code(model, grid, padded, writer.take, max_error, report, weight)
    return writer.streams(), _inner(padded)[grid.exists]


def decode(
    model: IntegerModel,
    streams: list[bytes],
    counts: list[int],
    shape: tuple[int, int],
    max_error: int = 0,
    report: Callable[[float], None] = lambda share: None,
    lossy: bool = False,
) -> list[np.ndarray]:
    """Decodes what `encode` returned.

    Args:
      model: the same model.
      streams: one a block.
      counts: number of images in each block; all have the same number of lanes.
      shape: height and width of the images.
      max_error: as given to `encode`.
      report: called with the share of the work done since the last call.
      lossy: whether `encode` had a weight.

    Returns:
      uint8 [count, height, width] for each block.

    Raises:
      rans.CorruptStream: a stream is damaged in a way that shows here.
    """
    if native := _native(False, max_error):
        return native.decode(model, streams, counts, shape, max_error, report, lossy)
    grid = Grid(counts)
    reader = Reader(grid, streams)
    padded = _empty(grid, *shape)
    weight = 0 if lossy else None
    _code(model, grid, padded, reader.take, max_error, report, weight)
    reader.finish()
    pixels = _inner(padded)[grid.exists]
    return np.split(pixels, np.cumsum(counts)[:-1])
