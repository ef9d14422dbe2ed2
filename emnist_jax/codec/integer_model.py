"""The pixel model in exact integers: what files are coded with.

Every number below is an integer held in float32. A matrix product of integers is
exact in any order of summation while all partial sums stay below 2**24, which
`operands_of` checks for the weights; scaling by powers of two, `floor` and clips
are exact too. So frequencies agree bit for bit on every backend, thread count and
batch size, under TF32 and bfloat16 inputs as well (operands need 8 bits).
docs/codec_format.md describes the arithmetic for other implementations.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from emnist_jax.codec.context import inputs_of
from emnist_jax.codec.integer_form import (
    EXACT,
    UNIT,
    PixelModelConfig,
    check_exact,
    operands_of,
)
from emnist_jax.codec.rans import TOTAL
from emnist_jax.codec.values import (
    BIN_OF_VALUE,
    BINS,
    PLACE_IN_BIN,
    PLACES,
    WIDEST,
    spans,
)

PEAK = 1 << 14  # table value of the likeliest symbol
# exp(-d / 64) for logits d/64 below the highest, as integers.
EXPONENTIAL = np.floor(PEAK * np.exp(-np.arange(11 * UNIT) / UNIT) + 0.5).astype(
    np.int32
)
# k log2(k) in 1/16 for k/4096: the higher the sum over all spans, the fewer bits.
ORDER = np.floor(
    16 * np.arange(4097) * np.log2(np.maximum(np.arange(4097), 1)) + 0.5
).astype(np.int32)
SMALLEST_PIECE = 32  # rows of the smallest compiled program


def _dense(inputs, layer, *biases):
    weight, bias, scale = layer
    total = jnp.dot(inputs, weight, preferred_element_type=jnp.float32)
    return jnp.floor((sum(biases, total) + bias[None]) * scale[None])


def _clip(value):
    return jnp.clip(value, 0, 255)


def _trunk(operands, prefix, blocks, contexts, row, column):
    inputs = inputs_of(contexts.astype(jnp.int32)).astype(jnp.float32)
    hidden = _clip(
        _dense(
            inputs,
            operands[f"{prefix}first"],
            operands[f"{prefix}row"][row],
            operands[f"{prefix}column"][column],
        )
    )
    for index in range(blocks):
        step = _dense(hidden, operands[f"{prefix}block{index}"])
        hidden = _clip(hidden + step)
    return hidden


def frequencies(logits: jax.Array, exists: jax.Array | None = None) -> jax.Array:
    """Turns integer logits into frequencies of at least 1 that sum to 65536.

    Args:
      logits: float32 [..., K] of integers, in 1/64 nat.
      exists: bool [..., K]; other symbols get frequency 0.

    Returns:
      int32 [..., K].
    """
    if exists is not None:
        logits = jnp.where(exists, logits, -float(EXACT))
    top = logits.max(axis=-1, keepdims=True)
    distance = jnp.minimum(top - logits, len(EXPONENTIAL) - 1).astype(jnp.int32)
    weight = jnp.asarray(EXPONENTIAL)[distance]
    if exists is None:
        exists = jnp.ones(logits.shape, bool)
    exists = exists.astype(jnp.int32)
    weight *= exists
    spread = TOTAL - exists.sum(axis=-1, keepdims=True)
    share = weight * spread // weight.sum(axis=-1, keepdims=True) + exists
    rest = TOTAL - share.sum(axis=-1, keepdims=True)
    symbols = jnp.arange(logits.shape[-1]).reshape((1,) * (logits.ndim - 1) + (-1,))
    first = logits.argmax(axis=-1)[..., None] == symbols
    return share + rest * first


@functools.partial(jax.jit, static_argnums=1)
def _gate(operands, blocks, contexts, row, column):
    del blocks
    hidden = _trunk(operands, "gate_", 1, contexts, row, column)
    return frequencies(_dense(hidden, operands["gate_head"]))[:, 0]


@functools.partial(jax.jit, static_argnums=1)
def _coarse(operands, blocks, contexts, row, column):
    hidden = _trunk(operands, "", blocks, contexts, row, column)
    table = frequencies(_dense(hidden, operands["coarse"]))
    return hidden, jnp.cumsum(table, axis=-1)


@jax.jit
def _fine(operands, hidden, bins):
    detail = _clip(_dense(hidden, operands["fine_hidden"], operands["fine_bin"][bins]))
    logits = _dense(detail, operands["fine"], operands["fine_place"][bins])
    table = frequencies(logits, jnp.asarray(PLACES)[bins])
    return jnp.cumsum(table, axis=-1)


@functools.partial(jax.jit, static_argnums=1)
def _values(operands, max_error, hidden, coarse_cumulative):
    """Frequencies of near-lossless spans, and the phase they are cut at."""
    coarse = jnp.diff(coarse_cumulative, axis=-1, prepend=0)  # [n, BINS]
    count = len(hidden)
    weight, bias, scale = operands["fine_hidden"]
    total = jnp.dot(hidden, weight, preferred_element_type=jnp.float32) + bias[None]
    detail = total[:, None] + operands["fine_bin"][None]  # [n, BINS, fine_width]
    detail = _clip(jnp.floor(detail * scale[None, None])).reshape(count * BINS, -1)
    place = jnp.tile(operands["fine_place"], (count, 1))
    exists = jnp.tile(jnp.asarray(PLACES), (count, 1))
    fine = frequencies(_dense(detail, operands["fine"], place), exists)
    joint = (coarse[..., None] >> 1) * (fine.reshape(count, BINS, WIDEST) >> 1) >> 14
    # A matrix of zeros and ones adds up the values of each span; sums reach 2**16,
    # for which inputs must not be cut to 8 bits.
    cut = spans(max_error)
    gather = np.zeros((BINS, WIDEST, *cut.exists.shape), np.float32)
    gather[BIN_OF_VALUE, PLACE_IN_BIN] = cut.members()
    mass = jnp.dot(
        joint.reshape(count, -1).astype(jnp.float32),
        jnp.asarray(gather.reshape(BINS * WIDEST, -1)),
        precision="highest",
    )
    mass = mass.astype(jnp.int32).reshape(count, *cut.exists.shape)
    phase = jnp.asarray(ORDER)[mass >> 4].sum(axis=-1).argmax(axis=-1)
    mass = jnp.take_along_axis(mass, phase[:, None, None], axis=1)[:, 0]
    exists = jnp.asarray(cut.exists)[phase].astype(jnp.int32)  # [n, spans]
    spread = (TOTAL - exists.sum(axis=-1, keepdims=True)).astype(jnp.uint32)
    share = ((mass.astype(jnp.uint32) * spread) >> 16).astype(jnp.int32) + exists
    rest = TOTAL - share.sum(axis=-1, keepdims=True)
    first = share.argmax(axis=-1)[:, None] == jnp.arange(share.shape[1])[None]
    return jnp.cumsum(share + rest * first, axis=-1), phase


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
    def _operands(self) -> dict:
        return operands_of(self.arrays, self.config)

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
        found = _gate(self._operands, 1, _padded(contexts), *place)
        return np.asarray(found)[: len(contexts)]

    def coarse(self, contexts, row, column) -> tuple[jax.Array, np.ndarray]:
        """Features of pixels (for `fine` and `values`) and of their bins.

        Args:
          contexts: uint8 [n, 112].
          row: int [n].
          column: int [n].

        Returns:
          float32 [n or more, width] and cumulative frequencies int32 [n, 22].
        """
        place = self._place(row, column)
        found = _coarse(self._operands, self.config.blocks, _padded(contexts), *place)
        return found[0], np.asarray(found[1])[: len(contexts)]

    def fine(self, hidden: jax.Array, bins: np.ndarray) -> np.ndarray:
        """Cumulative frequencies of the places in a bin, int32 [n, 16].

        Args:
          hidden: from `coarse`, for the same pixels.
          bins: int [n].
        """
        padded = np.zeros(len(hidden), np.int32)
        padded[: len(bins)] = bins
        return np.asarray(_fine(self._operands, hidden, padded))[: len(bins)]

    def values(
        self, hidden: jax.Array, coarse: np.ndarray, max_error: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cumulative frequencies of near-lossless spans.

        Args:
          hidden: from `coarse`, for the same pixels.
          coarse: likewise.
          max_error: 1..127.

        Returns:
          int32 [n, spans] and the index of the phase, int [n]; see `values.Spans`.
        """
        table = np.full((len(hidden), BINS), TOTAL, np.int32)
        table[: len(coarse)] = coarse
        found, phase = _values(self._operands, max_error, hidden, table)
        return np.asarray(found)[: len(coarse)], np.asarray(phase)[: len(coarse)]
