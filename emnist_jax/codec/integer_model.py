"""The pixel model in exact integers: what files are coded with.

Every number below is an integer held in float32. A matrix product of integers is
exact in any order of summation while all partial sums stay below 2**24, which
`IntegerModel` checks for its weights; scaling by powers of two, `floor` and clips
are exact too. So frequencies agree bit for bit on every backend, thread count and
batch size, under TF32 and bfloat16 inputs as well (operands need 8 bits).
docs/codec_format.md describes the arithmetic for other implementations.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from emnist_jax.codec import context
from emnist_jax.codec.pixel_model import (
    BIAS_UNIT,
    BIN_STARTS,
    BINS,
    PLACES,
    UNIT,
    WIDEST,
    PixelModelConfig,
    inputs_of,
    weight_shift,
)
from emnist_jax.codec.rans import TOTAL
from emnist_jax.errors import UserError

EXACT = 1 << 24  # float32 holds every integer up to here
PEAK = 1 << 14  # table value of the likeliest symbol
# exp(-d / 64) for logits d/64 below the highest, as integers.
EXPONENTIAL = np.floor(PEAK * np.exp(-np.arange(11 * UNIT) / UNIT) + 0.5).astype(
    np.int32
)
SMALLEST_PIECE = 32  # rows of the smallest compiled program


def layer_shapes(config: PixelModelConfig) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each layer, in the order of the model file."""
    width, gate = config.width, config.gate_width
    return {
        "gate_first": (context.INPUTS, gate),
        "gate_block0": (gate, gate),
        "gate_head": (gate, 2),
        "first": (context.INPUTS, width),
        **{f"block{index}": (width, width) for index in range(config.blocks)},
        "coarse": (width, BINS),
        "fine_hidden": (width, config.fine_width),
        "fine": (config.fine_width, WIDEST),
    }


def table_shapes(config: PixelModelConfig) -> dict[str, tuple[int, int]]:
    """Rows and columns of each table of biases, in the order of the model file."""
    return {
        "gate_row": (config.height, config.gate_width),
        "gate_column": (config.columns, config.gate_width),
        "row": (config.height, config.width),
        "column": (config.columns, config.width),
        "fine_bin": (BINS, config.fine_width),
        "fine_place": (BINS, WIDEST),
    }


_TABLES_OF = {
    "gate_first": ("gate_row", "gate_column"),
    "first": ("row", "column"),
    "fine_hidden": ("fine_bin",),
    "fine": ("fine_place",),
}


def quantise(config: PixelModelConfig, params: dict) -> dict[str, np.ndarray]:
    """Rounds trained parameters to the integers of the model file.

    Args:
      config: the model's sizes.
      params: parameters of `PixelModel`.

    Returns:
      For each layer `NAME.weight` int8 [in, out], `NAME.shift` uint8 [out] and
      `NAME.bias` int16 [out]; for each table `NAME` int16 [rows, out].
    """

    def find(name: str) -> dict:
        if name in ("first", "row", "column") or name.startswith("block"):
            return params["trunk"][name]
        gate = name.removeprefix("gate_")
        return (
            params["gate_trunk"][gate] if gate in params["gate_trunk"] else params[name]
        )

    def bias(value) -> np.ndarray:
        rounded = np.floor(np.asarray(value, np.float64) * BIAS_UNIT + 0.5)
        return np.clip(rounded, -32767, 32767).astype(np.int16)

    arrays = {}
    for name, shape in layer_shapes(config).items():
        layer = find(name)
        shift = np.asarray(weight_shift(jnp.asarray(layer["kernel"])))
        weight = np.asarray(layer["kernel"], np.float64) * 2.0**shift
        arrays[f"{name}.weight"] = np.clip(np.floor(weight + 0.5), -127, 127).astype(
            "i1"
        )
        arrays[f"{name}.shift"] = shift.astype(np.uint8)
        arrays[f"{name}.bias"] = bias(layer.get("bias", np.zeros(shape[1])))
    for name in table_shapes(config):
        arrays[name] = bias(find(name)["table"])
    return arrays


def _scaled(arrays: dict[str, np.ndarray], config: PixelModelConfig) -> dict:
    """Float32 operands: biases brought to the scale of each output's sum."""
    operands, exact = {}, True
    for name, (fan_in, _) in layer_shapes(config).items():
        weight = arrays[f"{name}.weight"].astype(np.int64)
        shift = arrays[f"{name}.shift"].astype(np.int64)
        scale = 1 << (shift - 4)  # biases are in 1/16 of the unit of activations
        bias = arrays[f"{name}.bias"] * scale + (1 << (shift - 1))  # floor rounds
        bound = 255 * np.abs(weight).sum(axis=0) + np.abs(bias)
        for table in _TABLES_OF.get(name, ()):
            values = arrays[table] * scale
            bound += np.abs(values).max(axis=0)
            operands[table] = jnp.asarray(values, jnp.float32)
        exact &= bool((bound < EXACT).all())
        operands[name] = (
            jnp.asarray(weight, jnp.float32),
            jnp.asarray(bias, jnp.float32),
            jnp.asarray(2.0**-shift, jnp.float32),
        )
    if not exact:
        raise UserError(
            "the pixel model's sums can exceed 2**24: its weights are too big"
        )
    return operands


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
    """Frequencies of pixel values rounded to multiples of 2 * max_error + 1."""
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
    # A matrix of zeros and ones gathers the places of each step; all sums are exact.
    steps = step_of_place(max_error)
    joint = joint.reshape(count, -1).astype(jnp.float32) @ jnp.asarray(steps)
    size = steps.shape[1]
    share = (joint.astype(jnp.uint32) * jnp.uint32(TOTAL - size)) >> 16
    share = share.astype(jnp.int32) + 1
    rest = TOTAL - share.sum(axis=-1, keepdims=True)
    first = share.argmax(axis=-1)[:, None] == jnp.arange(size)[None]
    return jnp.cumsum(share + rest * first, axis=-1)


def step_of_place(max_error: int) -> np.ndarray:
    """Which step of 2 * max_error + 1 values each place of each bin falls in.

    Returns:
      float32 [22 * 16, steps] of zeros and ones.
    """
    step = (np.arange(256) + max_error) // (2 * max_error + 1)
    values = BIN_STARTS[:, None] + np.arange(WIDEST)[None]
    matrix = np.zeros((BINS, WIDEST, step[-1] + 1), np.float32)
    bins, places = np.nonzero(PLACES)
    matrix[bins, places, step[values[bins, places]]] = 1
    return matrix.reshape(BINS * WIDEST, -1)


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
        self._operands = _scaled(arrays, config)

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
    ) -> np.ndarray:
        """Cumulative frequencies of values rounded to 2 * max_error + 1.

        Args:
          hidden: from `coarse`, for the same pixels.
          coarse: likewise.
          max_error: 1..127.

        Returns:
          int32 [n, (255 + max_error) // (2 * max_error + 1) + 1].
        """
        table = np.full((len(hidden), BINS), TOTAL, np.int32)
        table[: len(coarse)] = coarse
        found = _values(self._operands, max_error, hidden, table)
        return np.asarray(found)[: len(coarse)]
