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
    return {
        "adam": optax.scale_by_adam,
        "keras_adam": scale_by_keras_adam,
        "muon": scale_by_muon,
    }[config.optimizer]()


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


def scale_by_muon(beta: float = 0.95) -> optax.GradientTransformation:
    """Muon: Adam, but kernels between many channels step in all directions alike.

    The momentum of such a kernel, as a matrix `[inputs, features]`, is replaced by
    about the nearest matrix with orthogonal rows or columns (Jordan et al., 2024),
    scaled to the size of Adam's steps, so that one learning rate serves both
    (Liu et al., 2025, arXiv:2502.16982). Costs 1% of a train step.

    Args:
      beta: decay of the momentum of kernels.
    """
    adam = optax.scale_by_adam()

    def update(gradients, state, params=None):
        del params
        momentum = jax.tree.map(lambda m, g: beta * m + g, state.mu, gradients)
        directions, after = adam.update(gradients, state)

        def kernel_direction(gradient, momentum, direction):
            if not _is_matrix(gradient):
                return direction
            ahead = (gradient + beta * momentum).reshape(-1, gradient.shape[-1])
            scale = 0.2 * max(ahead.shape) ** 0.5
            return scale * orthogonalize(ahead).reshape(gradient.shape)

        def keep(gradient, momentum, mu):
            return momentum if _is_matrix(gradient) else mu

        directions = jax.tree.map(kernel_direction, gradients, momentum, directions)
        mu = jax.tree.map(keep, gradients, momentum, after.mu)
        return directions, after._replace(mu=mu)

    return optax.GradientTransformation(adam.init, update)


def _is_matrix(kernel: jax.Array) -> bool:
    return kernel.ndim > 1 and min(kernel.shape[-2:]) > 1


def orthogonalize(matrix: jax.Array) -> jax.Array:
    """The matrix with all its singular values brought near 1 (0.7 to 1.2).

    Args:
      matrix: `[M, N]`; five Newton-Schulz steps of the quintic of Jordan et al.
    """
    turned = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if turned else matrix
    x = x / (jnp.linalg.norm(x) + 1e-8)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if turned else x


def averaging_decay(config: Config, step: jax.Array) -> jax.Array:
    """How much of the averaged weights is kept after a step.

    `1 - 1/t` to a power: an average that looks back over the same part of the run
    at any time, so one setting serves short and long runs (Karras et al., 2024,
    arXiv:2312.02696).

    Args:
      config: weight_averaging is used; the mean age of the weights in the average,
        as a part of the steps done.
      step: steps done, from 1.
    """
    power = 1 / config.weight_averaging - 1
    return (1 - 1 / step.astype(jnp.float32)) ** power


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
