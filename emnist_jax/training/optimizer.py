"""Optimisers as one optax transformation each, with their learning rate in it."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from emnist_jax.devices import parallel

Schedule = Callable[[jax.Array], jax.Array]


def make_optimizer(
    descent: optax.GradientTransformation,
    schedule: Schedule,
    frozen: str | None = None,
) -> optax.GradientTransformation:
    """The whole transformation of gradients to updates.

    Args:
      descent: gives updates for a learning rate of 1, as `OPTIMIZERS` do.
      schedule: learning rate of a step, counted from 0.
      frozen: top-level key of the parameters that stay as they are.
    """
    if frozen is not None:
        descent = optax.partition(
            {"train": descent, "freeze": optax.set_to_zero()},
            lambda params: {k: "freeze" if k == frozen else "train" for k in params},
        )
    return optax.chain(descent, scale_by_rate(schedule))


def keras_adam(
    b1: float = 0.9, b2: float = 0.999, epsilon: float = 1e-7
) -> optax.GradientTransformation:
    """Adam as Keras computes it, with epsilon added before the bias correction.

    In the terms of the paper (Kingma and Ba, 2015, end of section 2) its epsilon
    is `epsilon / sqrt(1 - b2**t)`: 3e-6 at the first step. That damps the first
    steps and is part of why the published models start to learn at all. optax has
    no such epsilon. Learning rate 1.

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
        updates = jax.tree.map(
            lambda m, v: -(correction.astype(m.dtype) * m / (jnp.sqrt(v) + epsilon)),
            mu,
            nu,
        )
        return updates, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def between_channels(path: tuple, param: jax.Array) -> bool:
    """Whether a parameter is a kernel `[..., inputs, features]` of several each."""
    del path
    return param.ndim > 1 and min(param.shape[-2:]) > 1


def muon(
    chosen: Callable[[tuple, jax.Array], bool] = between_channels,
) -> optax.GradientTransformation:
    """Muon for the chosen kernels, Adam for all else; learning rate 1.

    Its steps are as large as Adam's (Liu et al., 2025, arXiv:2502.16982), so that one
    learning rate serves both.

    Args:
      chosen: of a path in the tree and its parameter, whether Muon moves it, as the
        matrix `[all but the last axis, features]`.
    """

    def kernels(params):
        def kind(path, param):
            if not chosen(path, param):
                return None
            last = param.ndim - 1
            return optax.contrib.MuonDimensionNumbers(tuple(range(last)), (last,))

        return jax.tree_util.tree_map_with_path(kind, params)

    return optax.contrib.muon(
        1.0,
        consistent_rms=0.2,
        adam_learning_rate=1.0,
        muon_weight_dimension_numbers=kernels,
    )


OPTIMIZERS = {
    "adam": lambda: optax.adam(1.0),
    "keras_adam": keras_adam,
    "muon": muon,
}


def learning_rate_schedule(
    name: str, peak: float, warmup_steps: int, total_steps: int
) -> Schedule:
    """Learning rate as a function of the step, counted from 0.

    Args:
      name: 'constant', 'cosine' to 0 at the end, or 'plateau', which is constant
        until `reduce_on_plateau` says otherwise.
      peak: highest rate.
      warmup_steps: of linear growth, at most a fifth of the run.
      total_steps: of the whole run.
    """

    def schedule(step: jax.Array) -> jax.Array:
        progress = step / float(total_steps)  # which may be too many for int32
        rate = peak
        if name == "cosine":
            rate = rate * 0.5 * (1 + jnp.cos(math.pi * jnp.minimum(progress, 1.0)))
        if warmup := min(warmup_steps, total_steps // 5):
            rate = rate * jnp.minimum(1.0, (step + 1) / warmup)
        return jnp.asarray(rate, jnp.float32)

    return schedule


class RateState(NamedTuple):
    """The learning rate of the last step, and what a plateau has made of it."""

    count: jax.Array  # int32 [], steps done
    rate: jax.Array  # float32 [], of the last step
    scale: jax.Array  # float32 [], below 1 after a plateau
    best: jax.Array  # float32 [], validation loss that counts for the plateau
    wait: jax.Array  # int32 [], epochs since


def scale_by_rate(schedule: Schedule) -> optax.GradientTransformation:
    """Multiplies updates with the schedule's rate, times the plateau's factor."""

    def init(params):
        del params
        one, zero = jnp.ones([], jnp.float32), jnp.zeros([], jnp.int32)
        return RateState(zero, 0 * one, one, jnp.inf * one, zero)

    def update(updates, state, params=None):
        del params
        rate = schedule(state.count) * state.scale
        updates = jax.tree.map(lambda u: rate.astype(u.dtype) * u, updates)
        return updates, state._replace(count=state.count + 1, rate=rate)

    return optax.GradientTransformation(init, update)


def rate_state(opt_state: Any) -> RateState:
    """The part of a state of `make_optimizer` that holds the learning rate."""
    return opt_state[-1]


def reduce_on_plateau(opt_state: Any, loss: float, peak: float) -> Any:
    """Keras' ReduceLROnPlateau as the published study sets it, after an epoch.

    The rate is multiplied by 0.1 when the validation loss has not been better than
    the best by 1e-4 for 5 epochs, and never goes below 1e-4. (optax' transformation
    compares relatively, and at every step.)

    Args:
      opt_state: of `make_optimizer`.
      loss: of the validation images.
      peak: the learning rate before any reduction.

    Returns:
      The next state.
    """
    state = jax.device_get(rate_state(opt_state))
    best, wait, scale = state.best, state.wait + 1, state.scale
    if loss < float(best) - 1e-4:
        best, wait = loss, 0
    elif wait >= 5:
        scale, wait = max(float(scale) * 0.1, min(1.0, 1e-4 / peak)), 0
    changed = {
        "scale": np.float32(scale),
        "best": np.float32(best),
        "wait": np.int32(wait),
    }
    state = rate_state(opt_state)._replace(**parallel.replicate(changed))
    return *opt_state[:-1], state
