"""The pixel model in floating point: what is trained.

Two small residual multilayer perceptrons read the context of a pixel:

* the *gate* answers for easy pixels: is this one 0 as well?
* the *main* network answers for all others, and for easy pixels that are not 0,
  in two steps: which of 22 bins of values, then which value in that bin.

Everything is shaped so that `integer_model` can repeat it in exact integers: all
activations are multiples of 1/64 in [0, 255/64], weights are 8-bit integers with
a power of two as scale for each output. With `quantise` the forward pass rounds
just so while gradients pass as if it had not (quantisation-aware training).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from emnist_jax.codec import context

UNIT = 64  # activations and logits are integers / 64
BIAS_UNIT = 1024  # biases are 16-bit integers / 1024
TOP = 255 / UNIT  # the largest activation
MIN_SHIFT, MAX_SHIFT = 4, 12  # weights are integers / 2**shift

# First value of each bin. Pixels pile up near 0 and at 250..255, so bins are
# narrow there; none is wider than 16.
BIN_STARTS = np.array([0, 1, 4, 8, *range(16, 256, 16), 248, 254, 255])
BIN_WIDTHS = np.diff(np.append(BIN_STARTS, 256))
BINS, WIDEST = len(BIN_STARTS), 16
BIN_OF_VALUE = np.repeat(np.arange(BINS), BIN_WIDTHS)
PLACE_IN_BIN = np.arange(256) - BIN_STARTS[BIN_OF_VALUE]
PLACES = np.arange(WIDEST)[None] < BIN_WIDTHS[:, None]  # [BINS, WIDEST] that exist


@dataclasses.dataclass(frozen=True)
class PixelModelConfig:
    """Sizes of the pixel model.

    Attributes:
      width: units in each hidden layer of the main network, 512 at most.
      blocks: its residual layers after the first.
      fine_width: hidden units of the step from bin to value.
      gate_width: hidden units of the gate.
      height: rows for which the model holds a position bias.
      columns: columns, likewise.
    """

    width: int = 384
    blocks: int = 2
    fine_width: int = 128
    gate_width: int = 64
    height: int = 28
    columns: int = 28

    def multiply_adds(self) -> tuple[int, int]:
        """Multiply-adds of one hard and of one easy pixel."""
        main = context.INPUTS * self.width + self.blocks * self.width**2
        main += self.width * (BINS + self.fine_width) + self.fine_width * WIDEST
        gate = context.INPUTS * self.gate_width + self.gate_width**2
        return main, gate + 2 * self.gate_width


def _round(value: jax.Array) -> jax.Array:
    """Rounds half up, with the gradient of the identity."""
    return value + jax.lax.stop_gradient(jnp.floor(value + 0.5) - value)


def weight_shift(kernel: jax.Array) -> jax.Array:
    """The power of two that makes each column of `kernel` fit 8 bits, [out]."""
    largest = jnp.max(jnp.abs(kernel), axis=0)
    shift = jnp.floor(jnp.log2(127 / jnp.maximum(largest, 1e-9)))
    return jnp.clip(shift, MIN_SHIFT, MAX_SHIFT)


class QuantisedDense(nn.Module):
    """A dense layer whose weights and biases can be rounded as stored."""

    features: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, inputs: jax.Array, quantise: bool) -> jax.Array:
        """Maps [n, in] to [n, features]."""
        shape = (inputs.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        if quantise:
            scale = jnp.exp2(jax.lax.stop_gradient(weight_shift(kernel)))[None]
            kernel = jnp.clip(_round(kernel * scale), -127, 127) / scale
        outputs = inputs @ kernel
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            outputs += rounded_bias(bias, quantise)[None]
        return outputs


class Offsets(nn.Module):
    """A table of biases, one row an index."""

    rows: int
    features: int

    @nn.compact
    def __call__(self, index: jax.Array, quantise: bool) -> jax.Array:
        """Looks up int [n] and returns [n, features]."""
        shape = (self.rows, self.features)
        table = self.param("table", nn.initializers.zeros, shape)
        return rounded_bias(table, quantise)[index]


def rounded_bias(bias: jax.Array, quantise: bool) -> jax.Array:
    """Returns `bias` as 16-bit integers / 1024 if `quantise`."""
    return _round(bias * BIAS_UNIT) / BIAS_UNIT if quantise else bias


def activation(value: jax.Array, quantise: bool) -> jax.Array:
    """Rectifies, clips at 255/64 and rounds to 1/64 if `quantise`."""
    if quantise:
        value = _round(value * UNIT) / UNIT
    return jnp.clip(value, 0, TOP)


def inputs_of(contexts: jax.Array) -> jax.Array:
    """Makes the network's inputs of context pixels.

    Args:
      contexts: float32 or int [n, 112], 0..255.

    Returns:
      The same type, [n, 156], 0..255: the pixels; then for the nearest ones
      their value near 0 and near 255, magnified 16 times.
    """
    focus = contexts[:, np.array(context.FOCUS)]
    low = jnp.minimum(16 * focus, 255)
    high = 16 * jnp.maximum(focus - 240, 0)
    return jnp.concatenate([contexts, low, high], axis=1)


class Trunk(nn.Module):
    """Residual multilayer perceptron over a context and its position."""

    config: PixelModelConfig
    width: int
    blocks: int

    @nn.compact
    def __call__(self, inputs, row, column, quantise: bool) -> jax.Array:
        """Maps inputs [n, 156] in [0, 255/64] to features [n, width]."""
        hidden = QuantisedDense(self.width, name="first")(inputs, quantise)
        hidden += Offsets(self.config.height, self.width, name="row")(row, quantise)
        hidden += Offsets(self.config.columns, self.width, name="column")(
            column, quantise
        )
        hidden = activation(hidden, quantise)
        for index in range(self.blocks):
            block = QuantisedDense(self.width, name=f"block{index}")
            hidden = activation(hidden + block(hidden, quantise), quantise)
        return hidden


class PixelModel(nn.Module):
    """Distribution of a pixel given its context."""

    config: PixelModelConfig

    def setup(self):
        """Names the layers."""
        config = self.config
        self.gate_trunk = Trunk(config, config.gate_width, 1)
        self.gate_head = QuantisedDense(2)
        self.trunk = Trunk(config, config.width, config.blocks)
        self.coarse = QuantisedDense(BINS)
        self.fine_hidden = QuantisedDense(config.fine_width)
        self.fine_bin = Offsets(BINS, config.fine_width)
        self.fine = QuantisedDense(WIDEST, use_bias=False)
        self.fine_place = Offsets(BINS, WIDEST)

    def gate(self, contexts, row, column, quantise: bool) -> jax.Array:
        """Logits [n, 2] of an easy pixel: 0, not 0.

        Args:
          contexts: float32 [n, 112], pixels 0..255.
          row: int [n], below `config.height`.
          column: int [n], below `config.columns`.
          quantise: whether to round as the integer form does.
        """
        inputs = inputs_of(contexts) / UNIT
        logits = self.gate_head(
            self.gate_trunk(inputs, row, column, quantise), quantise
        )
        return _round(logits * UNIT) / UNIT if quantise else logits

    def main(self, contexts, row, column, bins, quantise: bool):
        """Logits of any other pixel.

        Args:
          contexts: as for `gate`, as are `row`, `column` and `quantise`.
          row: see there.
          column: see there.
          bins: int [n], the bin the pixel's value lies in.
          quantise: see there.

        Returns:
          Logits of the bin [n, 22] and, given `bins`, of the place in it [n, 16].
        """
        inputs = inputs_of(contexts) / UNIT
        hidden = self.trunk(inputs, row, column, quantise)
        coarse = self.coarse(hidden, quantise)
        detail = self.fine_hidden(hidden, quantise) + self.fine_bin(bins, quantise)
        fine = self.fine(activation(detail, quantise), quantise)
        fine += self.fine_place(bins, quantise)
        if quantise:
            coarse, fine = (_round(x * UNIT) / UNIT for x in (coarse, fine))
        return coarse, jnp.where(jnp.asarray(PLACES)[bins], fine, -1e9)

    def values(self, contexts, row, column, quantise: bool) -> jax.Array:
        """Log-probabilities [n, 256] of a pixel's values; arguments as for `gate`."""
        inputs = inputs_of(contexts) / UNIT
        hidden = self.trunk(inputs, row, column, quantise)
        coarse = self.coarse(hidden, quantise)
        bins = jnp.arange(BINS)
        detail = self.fine_hidden(hidden, quantise)[:, None]
        detail += self.fine_bin(bins, quantise)[None]  # [n, BINS, fine_width]
        fine = self.fine(activation(detail, quantise), quantise)
        fine += self.fine_place(bins, quantise)[None]
        if quantise:
            coarse, fine = (_round(x * UNIT) / UNIT for x in (coarse, fine))
        fine = jnp.where(jnp.asarray(PLACES)[None], fine, -1e9)
        joint = jax.nn.log_softmax(coarse)[..., None] + jax.nn.log_softmax(fine)
        return joint[:, BIN_OF_VALUE, PLACE_IN_BIN]

    def __call__(self, contexts, row, column, bins):
        """Runs both networks, to create parameters."""
        main = self.main(contexts, row, column, bins, False)
        return self.gate(contexts, row, column, False), *main
