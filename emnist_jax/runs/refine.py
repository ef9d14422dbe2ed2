"""Latents that decode to an image more closely than the encoder's.

What an encoder gives in one pass a search improves: the amortisation gap (Cremer et al.
2018), which compression can close while it encodes (Yang et al. 2020).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emnist_jax.devices import parallel
from emnist_jax.models.autoencoder import to_unit_range

# Of a step along the gradient in a metric in which the decoder changes all pixels
# equally, one would be right for a linear decoder.
_FIRST, _LONGER, _SHORTER = 0.3, 1.15, 0.4
_MOMENTUM = 0.6  # of the step before: 8 steps then do what 12 do without


def refine(
    decoder: tuple[Any, Any],
    images: np.ndarray,
    latents: np.ndarray,
    metric: np.ndarray,
    steps: int,
) -> np.ndarray:
    """Latents after steps down the squared error with momentum, never worse.

    Args:
      decoder: and its parameters, as `Run.decoder` has them.
      images: uint8 `[N, H, W, 1]`.
      latents: float32 `[N, D]`, to start from.
      metric: `[D, D]`, what gradients are multiplied by: the inverse of mean(J'J) of
        the decoder's Jacobian J, near enough.
      steps: tried for each image; each passes the decoder forward and back.

    Returns:
      float32 `[N, D]`.
    """
    if not steps or not len(images):
        return latents
    module, params = decoder
    given = {"decoder": params, "metric": np.asarray(metric, np.float32)}
    rows = {"images": images, "latents": latents}
    return parallel.map_rows(_refining(module, steps), given, rows)


def errors(
    decoder: tuple[Any, Any], images: np.ndarray, latents: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Squared errors of decoded latents, and how latents change them.

    Args:
      decoder: as for `refine`.
      images: uint8 `[N, H, W, 1]`, at least one.
      latents: float32 `[N, D]`.

    Returns:
      float32 `[N]`, summed over an image's pixels, of white 1, and their gradients
      float32 `[N, D]`.
    """
    module, params = decoder
    rows = {"images": images, "latents": latents}
    return parallel.map_rows(_judging(module), params, rows)


@functools.cache
def _judging(module: Any):
    def judging(params: Any, rows: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        targets = to_unit_range(rows["images"])
        return _evaluate(module, params, targets, rows["latents"])

    return judging


def _evaluate(
    module: Any, params: Any, targets: jax.Array, latents: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Squared errors `[N]` and their gradients `[N, D]`."""

    def errors_of(latents: jax.Array) -> jax.Array:
        outputs = module.apply({"params": params}, latents)
        return jnp.sum((outputs - targets) ** 2, axis=(1, 2, 3))

    found, pull_back = jax.vjp(errors_of, latents)
    (gradient,) = pull_back(jnp.ones_like(found))
    return found, gradient


@functools.cache  # one compiled program an architecture
def _refining(module: Any, steps: int):
    def refining(given: dict[str, Any], rows: dict[str, jax.Array]) -> jax.Array:
        targets = to_unit_range(rows["images"])

        def evaluate(latents: jax.Array) -> tuple[jax.Array, jax.Array]:
            found, slope = _evaluate(module, given["decoder"], targets, latents)
            return found, -0.5 * slope @ given["metric"]

        def step(_: Any, state: tuple) -> tuple:
            latents, errors, direction, length, before = state
            change = _MOMENTUM * before + length[:, None] * direction
            tried = latents + change
            found, onward = evaluate(tried)
            better = found < errors
            keep = functools.partial(jnp.where, better[:, None])
            return (
                keep(tried, latents),
                jnp.where(better, found, errors),
                keep(onward, direction),
                length * jnp.where(better, _LONGER, _SHORTER),
                keep(change, 0.0),
            )

        latents = rows["latents"]
        lengths = jnp.full(len(latents), _FIRST)
        first = latents, *evaluate(latents), lengths, jnp.zeros_like(latents)
        return jax.lax.fori_loop(0, steps, step, first)[0]

    return refining
