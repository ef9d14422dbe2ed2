"""A row of pixels of all images in one compiled loop: what `device_coding` runs.

Images that sit out a symbol are computed all the same, which costs an accelerator less
than sorting them out.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from emnist_jax.codec import context, integer_network
from emnist_jax.codec.rans import LOWEST, TOTAL
from emnist_jax.codec.values import (
    BIN_OF_VALUE,
    BIN_STARTS,
    COSTS,
    PLACE_IN_BIN,
    spans,
)

Take = Callable[[jax.Array, jax.Array, Callable], jax.Array]


class Task(NamedTuple):
    """What a compiled loop depends on.

    Attributes:
      shape: blocks, rounds and lanes (see `rans.Grid`), blocks a power of two.
      layers: residual layers of the main network.
      max_error: 0 for lossless.
      means: whether spans come back as the mean of what is expected in them.
      weighs: whether the encoder weighs squared errors against bits.
    """

    shape: tuple[int, int, int]
    layers: int
    max_error: int
    means: bool
    weighs: bool

    def by_round(self, values: jax.Array) -> jax.Array:
        """[places, ...] to [rounds, blocks, lanes, ...]."""
        return values.reshape(*self.shape, *values.shape[1:]).swapaxes(0, 1)


class Weight(NamedTuple):
    """What a squared error is worth in 2**-16 bits: 65536 * high + low."""

    high: jax.Array  # uint32 []
    low: jax.Array  # uint32 []

    def times(self, squares: jax.Array, bits: jax.Array) -> tuple[jax.Array, jax.Array]:
        """High and low part, the latter below 2**16, of weight * squares + bits.

        Exact for a weight below 2**32, squares to 255**2 and bits below 2**21.
        """
        low = self.low * squares + bits
        return self.high * squares + (low >> 16), low & 0xFFFF


def _pixel(
    task: Task,
    operands: dict,
    take: Take,
    padded: jax.Array,
    exists: jax.Array,
    place: tuple[jax.Array, jax.Array],
    weight: Weight,
) -> jax.Array:
    """Codes a pixel of all images; returns `padded` with what it decodes to.

    Args:
      task: what is coded.
      operands: of the network.
      take: codes a symbol of some images: from bool [P], whose turn it is, their
        cumulative frequencies [P, K], and a function from values to symbols, to the
        symbols int32 [P].
      padded: uint8 [P, height + 7, width + 14], decoded so far.
      exists: bool [P], where there is an image.
      place: row and column, int32 [] each.
      weight: for `task.weighs`.
    """
    size = len(padded), context.ROWS + 1, context.WINDOW
    window = jax.lax.dynamic_slice(padded, (0, *place), size).reshape(len(padded), -1)
    window = window[:, : context.NEIGHBOURS]
    ink = (window[:, np.array(context.NEAREST)] > 0).any(axis=1)
    last = (operands[name].shape[0] - 1 for name in ("row", "column"))
    at = [jnp.minimum(p, q) for p, q in zip(place, last, strict=True)]
    zero = integer_network.gate(operands, window, *at)
    is_ink = functools.partial(_is_ink, task, weight, zero)
    table = jnp.stack([zero, jnp.full_like(zero, TOTAL)], axis=1)
    escaped = take(exists & ~ink, table, is_ink)
    hard = exists & (ink | (escaped > 0))
    hidden, coarse = integer_network.coarse(operands, task.layers, window, *at)
    if task.max_error:
        table, phase, means = integer_network.values(
            operands, task.max_error, hidden, coarse
        )
        cut = spans(task.max_error)
        decoded = means if task.means else jnp.asarray(cut.value, jnp.int32)[phase]

        def span_of(values: jax.Array) -> jax.Array:
            if task.weighs:
                return _best_span(weight, decoded, table, values)
            return jnp.asarray(cut.of_value)[phase, values]

        found = take(hard, table, span_of)
        value = jnp.take_along_axis(decoded, found[:, None], axis=1)[:, 0]
    else:
        bins = take(hard, coarse, jnp.asarray(BIN_OF_VALUE).__getitem__)
        fine = integer_network.fine(operands, hidden, bins)
        inside = take(hard, fine, jnp.asarray(PLACE_IN_BIN).__getitem__)
        value = jnp.asarray(BIN_STARTS)[bins] + inside
    pixel = jnp.where(hard, value, 0).astype(jnp.uint8)[:, None, None]
    row, column = place
    corner = 0, row + context.ROWS, column + context.COLUMNS
    return jax.lax.dynamic_update_slice(padded, pixel, corner)


def _is_ink(task: Task, weight: Weight, zero: jax.Array, values: jax.Array):
    """Whether easy pixels are coded as more than 0; `zero` is the frequency of 0."""
    far = values > task.max_error
    if not task.weighs:
        return far
    saved = jnp.asarray(COSTS)[TOTAL - zero] - jnp.asarray(COSTS)[zero]
    high, low = weight.times(values.astype(jnp.uint32) ** 2, jnp.uint32(0))
    worth = (jnp.minimum(high, 1 << 14) << 16 | low).astype(jnp.int32)
    return far & (worth > saved)


def _best_span(weight: Weight, decoded, table, values: jax.Array) -> jax.Array:
    """The first of the spans that cost least, bits and squared error together."""
    frequency = jnp.diff(table, axis=1, prepend=0)
    off = jnp.abs(values.astype(jnp.int32)[:, None] - decoded).astype(jnp.uint32)
    bits = jnp.asarray(COSTS)[frequency].astype(jnp.uint32)
    high, low = weight.times(off**2, bits)
    most = jnp.uint32(0xFFFFFFFF)
    high = jnp.where(frequency > 0, high, most)
    low = jnp.where(high == high.min(axis=1, keepdims=True), low, most)
    return low.argmin(axis=1)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=5)
def decode_row(task, operands, words, exists, row, carry):
    """Takes a row of pixels out of streams.

    Args:
      task: what is coded.
      operands: of the network.
      words: uint16 [blocks, most], the streams' words, then zeros.
      exists: bool [P], where there is an image.
      row: int32 [].
      carry: `padded` of `_pixel`, states uint32 [blocks, lanes], and how many words are
        taken, int32 [blocks]; its memory is reused.

    Returns:
      The next `carry`; more words taken than there are is for the host to see.
    """

    def pixel(column, carry):
        padded, *coder = carry

        def take(whose, table, symbols_of):
            del symbols_of
            rounds = task.by_round(whose), task.by_round(table)
            coder[:], found = jax.lax.scan(
                functools.partial(_take_round, words), coder, rounds
            )
            return jnp.where(whose, found.swapaxes(0, 1).reshape(-1), 0)

        none = Weight(jnp.uint32(0), jnp.uint32(0))
        padded = _pixel(task, operands, take, padded, exists, (row, column), none)
        return padded, *coder

    width = carry[0].shape[2] - 2 * context.COLUMNS
    return jax.lax.fori_loop(0, width, pixel, carry)


def _take_round(words, coder, round_):
    """Decodes a symbol in the lanes whose turn it is, [blocks, lanes]."""
    state, taken = coder
    whose, ends = round_
    slot = state & 0xFFFF
    symbol = (ends <= slot[..., None].astype(jnp.int32)).sum(axis=-1)
    ends = jnp.pad(ends, ((0, 0), (0, 0), (1, 0)))
    low, high = (
        jnp.take_along_axis(ends, at[..., None], axis=-1)[..., 0]
        for at in (symbol, symbol + 1)
    )
    start = jnp.where(whose, low, 0).astype(jnp.uint32)
    frequency = jnp.where(whose, high - low, TOTAL).astype(jnp.uint32)
    state = frequency * (state >> 16) + slot - start
    empty = state < LOWEST
    rank = jnp.cumsum(empty, axis=1, dtype=jnp.int32)
    # What lies past the end is seen by the host, after the row.
    at = jnp.clip(taken[:, None] + rank - 1, 0, words.shape[1] - 1)
    word = jnp.take_along_axis(words, at, axis=1).astype(jnp.uint32)
    state = jnp.where(empty, state << 16 | word, state)
    return [state, taken + rank[:, -1]], symbol


@functools.partial(jax.jit, static_argnums=0, donate_argnums=5)
def choose_row(task, operands, weight, exists, row, padded, values):
    """Chooses the symbols of a row of pixels.

    Args:
      task: as for `decode_row`, as are `operands`, `exists` and `row`.
      operands: see there.
      weight: of squared errors, for `task.weighs`.
      exists: see there.
      row: see there.
      padded: of `_pixel`; its memory is reused.
      values: uint8 [P, width], the row.

    Returns:
      `padded`, and the symbols' first points and their frequencies less 1, uint16
      [steps, blocks, lanes].
    """

    def pixel(padded, column_values):
        column, values = column_values
        intervals = []

        def take(whose, table, symbols_of):
            symbols = symbols_of(values).astype(jnp.int32)
            table = jnp.pad(table, ((0, 0), (1, 0)))
            low, high = (
                jnp.take_along_axis(table, at[:, None], axis=1)[:, 0]
                for at in (symbols, symbols + 1)
            )
            start = jnp.where(whose, low, 0)
            most = jnp.where(whose, high - low - 1, TOTAL - 1)
            intervals.append(jnp.stack([start, most]).astype(jnp.uint16))
            return jnp.where(whose, symbols, 0)

        padded = _pixel(task, operands, take, padded, exists, (row, column), weight)
        return padded, jnp.stack(intervals, axis=1)  # [2, takes, P]

    columns = jnp.arange(values.shape[1]), values.T
    padded, intervals = jax.lax.scan(pixel, padded, columns)
    blocks, rounds, lanes = task.shape
    intervals = intervals.swapaxes(0, 1).reshape(2, -1, blocks, rounds, lanes)
    start, most = intervals.swapaxes(2, 3).reshape(2, -1, blocks, lanes)
    return padded, start, most


@jax.jit
def write_row(state, start, most):
    """Codes a row's symbols, the last one first.

    Args:
      state: uint32 [blocks, lanes].
      start: of `choose_row`, as is `most`.
      most: likewise.

    Returns:
      The states, words uint16 [steps, blocks, lanes] in the order of reading, and bool
      of that shape, which of them there are.
    """

    def step(state, interval):
        start, length = interval[0].astype(jnp.uint32), interval[1].astype(jnp.uint32)
        length += 1
        full = (state >> 16) >= length
        word = (state & 0xFFFF).astype(jnp.uint16)
        state = jnp.where(full, state >> 16, state)
        state = (state // length << 16) + state % length + start
        return state, (word, full)

    return jax.lax.scan(step, state, (start, most), reverse=True)
