"""The pixel model in floating point: what is trained, and the bits it spends.

Two small residual multilayer perceptrons read the context of a pixel:

* the *gate* answers for easy pixels: is this one 0 as well?
* the *main* network answers for all others, and for easy pixels that are not 0,
  in two steps: which of 22 bins of values, then which value in that bin.

Everything is shaped so that `integer_model` can repeat it in exact integers: all
activations are multiples of 1/64 in [0, 255/64], weights are 8-bit integers with
a power of two as scale for each output. With `quantise` the forward pass rounds
just so while gradients pass as if it had not (quantisation-aware training).
"""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from emnist_jax.codec.integer_form import BIAS_UNIT, UNIT, PixelModelConfig
from emnist_jax.codec.integer_network import inputs_of
from emnist_jax.codec.quantise import weight_shift
from emnist_jax.codec.sampler import PixelSampler
from emnist_jax.codec.values import (
    BIN_OF_VALUE,
    BINS,
    PLACE_IN_BIN,
    PLACES,
    WIDEST,
    spans,
)

TOP = 255 / UNIT  # the largest activation
EVALUATION_PIECE = 8192  # pixels a forward pass


def _round(value: jax.Array) -> jax.Array:
    """Rounds half up, with the gradient of the identity."""
    return value + jax.lax.stop_gradient(jnp.floor(value + 0.5) - value)


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


def _bits(logits: jax.Array, labels: jax.Array) -> jax.Array:
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return loss / jnp.log(2)


def hard_bits(
    model: PixelModel, params, pixels, quantise: bool, max_error: int = 0
) -> jax.Array:
    """Bits of each pixel [n] coded by the main network."""
    value = pixels["value"].astype(jnp.int32)
    contexts = pixels["context"].astype(jnp.float32)
    place = jnp.divmod(pixels["pixel"].astype(jnp.int32), model.config.columns)
    if max_error:
        logits = model.apply(
            {"params": params}, contexts, *place, quantise, method="values"
        )
        return span_bits(logits, value, max_error)
    bins = jnp.asarray(BIN_OF_VALUE)[value]
    coarse, fine = model.apply(
        {"params": params}, contexts, *place, bins, quantise, method="main"
    )
    return _bits(coarse, bins) + _bits(fine, jnp.asarray(PLACE_IN_BIN)[value])


def span_bits(logits: jax.Array, value: jax.Array, max_error: int) -> jax.Array:
    """Bits of the near-lossless spans that values lie in, as the coder cuts them.

    Args:
      logits: float32 [n, 256], log-probabilities of values.
      value: int [n].
      max_error: 1..127.

    Returns:
      float32 [n].
    """
    cut = spans(max_error)
    members = jnp.asarray(cut.members().reshape(256, -1), jnp.float32)
    mass = jnp.exp(jax.lax.stop_gradient(logits)) @ members
    mass = mass.reshape(-1, *cut.exists.shape)
    phase = (mass * jnp.log(jnp.maximum(mass, 1e-9))).sum(axis=-1).argmax(axis=-1)
    of_value = jnp.asarray(cut.of_value)[phase]  # [n, 256]
    inside = of_value == jnp.take_along_axis(of_value, value[:, None], axis=1)
    chosen = jnp.where(inside, logits, -1e9)
    return -jax.nn.logsumexp(chosen, axis=1) / jnp.log(2)


def easy_bits(model: PixelModel, params, pixels, quantise: bool) -> jax.Array:
    """Bits of each easy pixel [n] spent by the gate."""
    logits = model.apply(
        {"params": params},
        pixels["context"].astype(jnp.float32),
        *jnp.divmod(pixels["pixel"].astype(jnp.int32), model.config.columns),
        quantise,
        method="gate",
    )
    return _bits(logits, pixels["ink"].astype(jnp.int32))


# Compiled once for a whole training, which asks for them after every epoch.
_easy_bits = jax.jit(easy_bits, static_argnums=(0, 3))
_hard_bits = jax.jit(hard_bits, static_argnums=(0, 3, 4))


def bits_per_pixel(
    model: PixelModel,
    params: dict,
    sampler: PixelSampler,
    quantise: bool,
    max_error: int = 0,
) -> float:
    """Mean bits per pixel of all images of `sampler`, an estimate without a file."""
    total = 0.0
    for kind, pixels, count in sampler.every(EVALUATION_PIECE):
        if kind == "easy":
            bits = _easy_bits(model, params, pixels, quantise)
        else:
            bits = _hard_bits(model, params, pixels, quantise, max_error)
        total += float(bits[:count].sum())
    return total / sampler.pixels
