"""The pixel model in exact integers with JAX, for accelerators.

Every number below is an integer held in float32. A matrix product of integers is
exact in any order of summation while all partial sums stay below 2**24, which
`integer_form.check_exact` sees to; scaling by powers of two, `floor` and clips
are exact too. So frequencies agree bit for bit on every backend, thread count and
batch size, under TF32 and bfloat16 inputs as well (operands need 8 bits).
docs/codec_format.md describes the arithmetic for other implementations.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from emnist_jax.codec.context import FOCUS
from emnist_jax.codec.integer_form import (
    EXACT,
    EXPONENTIAL,
    ORDER,
    PixelModelConfig,
    layer_shapes,
    scaled,
)
from emnist_jax.codec.rans import TOTAL
from emnist_jax.codec.values import (
    BIN_OF_VALUE,
    BIN_STARTS,
    BINS,
    PLACE_IN_BIN,
    PLACES,
    WIDEST,
    spans,
)


def inputs_of(contexts: jax.Array) -> jax.Array:
    """Makes the network's inputs of context pixels.

    Args:
      contexts: float32 or int [n, 112], 0..255.

    Returns:
      The same type, [n, 156], 0..255: the pixels; then for the nearest ones
      their value near 0 and near 255, magnified 16 times.
    """
    focus = contexts[:, np.array(FOCUS)]
    low = jnp.minimum(16 * focus, 255)
    high = 16 * jnp.maximum(focus - 240, 0)
    return jnp.concatenate([contexts, low, high], axis=1)


def operands_of(arrays: dict[str, np.ndarray], config: PixelModelConfig) -> dict:
    """Float32 operands: biases brought to the scale of each output's sum."""
    operands = {}
    for name in layer_shapes(config):
        biases = {
            key: jnp.asarray(value, jnp.float32)
            for key, value in scaled(arrays, name).items()
        }
        weight = jnp.asarray(arrays[f"{name}.weight"], jnp.float32)
        scale = jnp.asarray(2.0 ** -arrays[f"{name}.shift"].astype(np.int64), "f4")
        operands |= {**biases, name: (weight, biases[name], scale)}
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
            operands[f"{prefix}row"][jnp.atleast_1d(row)],
            operands[f"{prefix}column"][jnp.atleast_1d(column)],
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


@jax.jit
def gate(operands, contexts, row, column):
    """Frequencies of 0 for easy pixels.

    Args:
      operands: of `operands_of`.
      contexts: uint8 [n, 112].
      row: int [n], or [] for all, at most the tables' last.
      column: likewise.

    Returns:
      int32 [n], 1..65535 of 65536.
    """
    hidden = _trunk(operands, "gate_", 1, contexts, row, column)
    return frequencies(_dense(hidden, operands["gate_head"]))[:, 0]


@functools.partial(jax.jit, static_argnums=1)
def coarse(operands, blocks, contexts, row, column):
    """Activations float32 [n, width] of the trunk, and a cumulative table of bins.

    The table is int32 [n, 22]; `blocks` is the number of residual layers, the other
    arguments are as for `gate`.
    """
    hidden = _trunk(operands, "", blocks, contexts, row, column)
    table = frequencies(_dense(hidden, operands["coarse"]))
    return hidden, jnp.cumsum(table, axis=-1)


@jax.jit
def fine(operands, hidden, bins):
    """Cumulative frequencies int32 [n, 16] of the places in bins, int [n]."""
    detail = _clip(_dense(hidden, operands["fine_hidden"], operands["fine_bin"][bins]))
    logits = _dense(detail, operands["fine"], operands["fine_place"][bins])
    table = frequencies(logits, jnp.asarray(PLACES)[bins])
    return jnp.cumsum(table, axis=-1)


@functools.partial(jax.jit, static_argnums=1)
def values(operands, max_error, hidden, coarse_cumulative):
    """Frequencies of near-lossless spans, the phase they are cut at, means in them."""
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

    def sums(terms: jax.Array) -> jax.Array:
        found = jnp.dot(
            terms.reshape(count, -1).astype(jnp.float32),
            jnp.asarray(gather.reshape(BINS * WIDEST, -1)),
            precision="highest",
        )
        return found.astype(jnp.int32).reshape(count, *cut.exists.shape)

    mass = sums(joint)
    phase = jnp.asarray(ORDER)[mass >> 4].sum(axis=-1).argmax(axis=-1)
    value = jnp.asarray(BIN_STARTS[:, None] + np.arange(WIDEST))
    mass, moment = (  # the second below 255 * 2**16
        jnp.take_along_axis(x, phase[:, None, None], axis=1)[:, 0]
        for x in (mass, sums(joint * value[None]))
    )
    middle = jnp.asarray(cut.value, jnp.int32)[phase]
    mean = (2 * moment + mass) // jnp.maximum(2 * mass, 1)
    exact = (mass > 0) & (jnp.arange(mass.shape[1]) > 0)[None]
    exists = jnp.asarray(cut.exists)[phase].astype(jnp.int32)  # [n, spans]
    spread = (TOTAL - exists.sum(axis=-1, keepdims=True)).astype(jnp.uint32)
    share = ((mass.astype(jnp.uint32) * spread) >> 16).astype(jnp.int32) + exists
    rest = TOTAL - share.sum(axis=-1, keepdims=True)
    first = share.argmax(axis=-1)[:, None] == jnp.arange(share.shape[1])[None]
    table = jnp.cumsum(share + rest * first, axis=-1)
    return table, phase, jnp.where(exact, mean, middle)
