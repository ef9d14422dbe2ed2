"""Bits that a pixel model spends on pixels, in floating point: what training lowers."""

import jax
import jax.numpy as jnp
import optax

from emnist_jax.codec.pixel_model import BIN_OF_VALUE, PLACE_IN_BIN, PixelModel
from emnist_jax.codec.rounding import steps
from emnist_jax.codec.sampler import PixelSampler

EVALUATION_PIECE = 8192  # pixels a forward pass


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
        return step_bits(logits, value, max_error)
    bins = jnp.asarray(BIN_OF_VALUE)[value]
    coarse, fine = model.apply(
        {"params": params}, contexts, *place, bins, quantise, method="main"
    )
    return _bits(coarse, bins) + _bits(fine, jnp.asarray(PLACE_IN_BIN)[value])


def step_bits(logits: jax.Array, value: jax.Array, max_error: int) -> jax.Array:
    """Bits of the near-lossless steps that values lie in, as the coder cuts them.

    Args:
      logits: float32 [n, 256], log-probabilities of values.
      value: int [n].
      max_error: 1..127.

    Returns:
      float32 [n].
    """
    cut = steps(max_error)
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


def bits_per_pixel(
    model: PixelModel,
    params: dict,
    sampler: PixelSampler,
    quantise: bool,
    max_error: int = 0,
) -> float:
    """Mean bits per pixel of all images of `sampler`, an estimate without a file."""
    estimate = {
        "easy": jax.jit(lambda p, pixels: easy_bits(model, p, pixels, quantise)),
        "hard": jax.jit(
            lambda p, pixels: hard_bits(model, p, pixels, quantise, max_error)
        ),
    }
    total = 0.0
    for kind, pixels, count in sampler.every(EVALUATION_PIECE):
        total += float(estimate[kind](params, pixels)[:count].sum())
    return total / sampler.pixels
