"""Adam, Keras' Adam and learning-rate schedules."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from emnist_jax.config import Config


def make_optimizer(config: Config) -> optax.GradientTransformation:
    """The direction of descent, to be multiplied with the learning rate."""
    return (
        scale_by_keras_adam()
        if config.optimizer == "keras_adam"
        else (optax.scale_by_adam())
    )


def scale_by_keras_adam(
    b1: float = 0.9, b2: float = 0.999, epsilon: float = 1e-7
) -> optax.GradientTransformation:
    """Adam as Keras computes it, with epsilon added before the bias correction.

    In the terms of the paper (Kingma and Ba, 2015, end of section 2) its epsilon
    is `epsilon / sqrt(1 - b2**t)`: 3e-6 at the first step. That damps the first
    steps and is part of why the published models start to learn at all.

    Args:
      b1: decay of the mean of gradients.
      b2: decay of the mean of their squares.
      epsilon: added to the root of the uncorrected mean of squares.
    """

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return optax.ScaleByAdamState(jnp.zeros([], jnp.int32), zeros, zeros)

    def update(gradients, state, params=None):
        del params
        count = state.count + 1
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, gradients)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, state.nu, gradients)
        correction = jnp.sqrt(1 - b2**count) / (1 - b1**count)
        direction = jax.tree.map(
            lambda m, v: correction.astype(m.dtype) * m / (jnp.sqrt(v) + epsilon),
            mu,
            nu,
        )
        return direction, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def learning_rate_schedule(
    config: Config, total_steps: int
) -> Callable[[jax.Array], jax.Array]:
    """Learning rate as a function of the step, counted from 0.

    'plateau' is constant here: its factor depends on validation losses and is part
    of the train state (`Plateau`).

    Args:
      config: schedule, learning_rate and warmup_steps are used.
      total_steps: of the whole run, where 'cosine' comes to 0.
    """

    def schedule(step: jax.Array) -> jax.Array:
        progress = step / float(total_steps)  # which may be too many for int32
        rate = config.learning_rate
        if config.schedule == "cosine":
            rate = rate * 0.5 * (1 + jnp.cos(math.pi * jnp.minimum(progress, 1.0)))
        if warmup_steps := min(config.warmup_steps, total_steps // 5):
            rate = rate * jnp.minimum(1.0, (step + 1) / warmup_steps)
        return jnp.asarray(rate, jnp.float32)

    return schedule


@dataclasses.dataclass(frozen=True)
class Plateau:
    """Keras' ReduceLROnPlateau as the published study sets it.

    The rate is multiplied by 0.1 when the validation loss has not been better than
    the best by 1e-4 (absolute) for 5 epochs, and never goes below 1e-4.
    """

    scale: float = 1.0
    best: float | None = None
    wait: int = 0

    def update(self, validation_loss: float, learning_rate: float) -> "Plateau":
        """The state after an epoch; `learning_rate` is the unscaled one."""
        if self.best is None or validation_loss < self.best - 1e-4:
            return Plateau(self.scale, validation_loss, 0)
        if self.wait + 1 < 5:
            return Plateau(self.scale, self.best, self.wait + 1)
        floor = min(1.0, 1e-4 / learning_rate)
        return Plateau(max(self.scale * 0.1, floor), self.best, 0)
