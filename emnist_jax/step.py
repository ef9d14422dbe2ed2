"""The train step: a pure function of the train state and a batch of images."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from emnist_jax import parallel
from emnist_jax.augment import augment
from emnist_jax.config import Config
from emnist_jax.models.autoencoder import Autoencoder, to_unit_range
from emnist_jax.optimizer import (
    averaging_decay,
    learning_rate_schedule,
    make_optimizer,
)

Metrics = dict[str, jax.Array]


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes; a plain tree of arrays."""

    step: jax.Array  # int32 [], steps done
    params: Any  # {'encoder': ..., 'decoder': ...}
    opt_state: Any
    learning_rate_scale: jax.Array  # float32 [], below 1 after a plateau
    averaged: Any  # like params; {} without --weight_averaging

    @property
    def exported(self) -> Any:
        """The parameters to validate and export."""
        return self.averaged or self.params


def make_model(config: Config, mean_pixel: float = 0.5) -> Autoencoder:
    """The autoencoder that `config` describes.

    Args:
      config: the run's settings.
      mean_pixel: mean of the training pixels in [0, 1], for `output_bias='mean'`.
    """
    bias = 0.0
    if config.output_bias == "mean":
        mean_pixel = min(max(mean_pixel, 1e-3), 1 - 1e-3)
        bias = float(np.log(mean_pixel / (1 - mean_pixel)))
    return Autoencoder(
        config.decoder,
        config.latent_dim,
        config.latent_activation,
        config.initialization,
        bias,
        jnp.bfloat16 if config.compute_dtype == "bfloat16" else None,
    )


def create_state(
    config: Config, model: Autoencoder, initial: Mapping[str, Any] | None = None
) -> TrainState:
    """The state before the first step.

    Args:
      config: the run's settings; initial values depend on the seed alone.
      model: the autoencoder.
      initial: parameters by part, 'encoder' or 'decoder', to start from instead.
    """

    def init(key: jax.Array, initial: Mapping[str, Any]) -> TrainState:
        params = model.init(key, jnp.zeros((1, 28, 28, 1)))["params"]
        params = {**params, **initial}
        return TrainState(
            step=jnp.zeros([], jnp.int32),
            params=params,
            opt_state=make_optimizer(config).init(params),
            learning_rate_scale=jnp.ones([], jnp.float32),
            averaged=params if config.weight_averaging else {},
        )

    return jax.jit(init)(jax.random.key(config.seed), initial or {})


def make_train_step(
    config: Config, model: Autoencoder, total_steps: int
) -> Callable[[TrainState, jax.Array], tuple[TrainState, Metrics]]:
    """The step of one device inside `parallel.pmapped`.

    Args:
      config: the run's settings.
      model: the autoencoder.
      total_steps: of the whole run, for the schedule.

    Returns:
      A pure function of the state and this device's images `[B, 28, 28, 1]`, uint8,
      to the next state and metrics, both the same on every device.
    """
    optimizer = make_optimizer(config)
    learning_rate = learning_rate_schedule(config, total_steps)

    def loss_fn(params: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        if config.freeze != "none":
            fixed = jax.lax.stop_gradient(params[config.freeze])
            params = {**params, config.freeze: fixed}
        targets = to_unit_range(images)
        outputs = model.apply({"params": params}, targets).images
        outputs = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
        return jnp.mean((outputs - targets) ** 2), outputs

    def train_step(state: TrainState, images: jax.Array) -> tuple[TrainState, Metrics]:
        images = augment(config, images, state.step)
        (loss, outputs), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, images
        )
        loss, gradients = parallel.mean_over_devices((loss, gradients))
        directions, opt_state = optimizer.update(gradients, state.opt_state)
        rate = learning_rate(state.step) * state.learning_rate_scale

        def move(param: jax.Array, direction: jax.Array) -> jax.Array:
            if config.weight_decay and param.ndim > 1:
                direction += config.weight_decay * param
            return param - rate.astype(param.dtype) * direction

        params = {
            part: tree
            if part == config.freeze
            else jax.tree.map(move, tree, directions[part])
            for part, tree in state.params.items()
        }
        averaged = {}
        if config.weight_averaging:
            keep = averaging_decay(config, state.step + 1)
            averaged = optax.incremental_update(params, state.averaged, 1 - keep)
        metrics = {
            "loss": loss,
            "gradient_norm": optax.tree.norm(gradients),
            # 0 when every output pixel of every image is the same constant.
            "output_range": parallel.range_over_devices(outputs),
            "learning_rate": rate,
        }
        return state.replace(
            step=state.step + 1, params=params, opt_state=opt_state, averaged=averaged
        ), metrics

    return train_step


def make_epoch_step(train_step: Callable) -> Callable:
    """Several steps as one compiled call over images that live on the device.

    Args:
      train_step: from `make_train_step`.

    Returns:
      A pure function of the state, all training images `[N, 28, 28, 1]` and this
      device's rows `[K, B]` to the state after K steps and metrics `[K]`.
    """

    def epoch_step(state, images, rows):
        def body(state, batch_rows):
            return train_step(state, images[batch_rows])

        return jax.lax.scan(body, state, rows)

    return epoch_step
