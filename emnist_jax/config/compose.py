"""Plain values from a run's settings: images, model, optimiser, loss, validation.

Only this module, `train` and `evaluate` read the `Config`; what they build knows
nothing of it.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from emnist_jax.cli.errors import UserError
from emnist_jax.config import Config
from emnist_jax.data import own
from emnist_jax.data.datasets import load
from emnist_jax.data.selection import Selection, split_up
from emnist_jax.devices import parallel
from emnist_jax.models import metrics
from emnist_jax.models.autoencoder import Autoencoder, to_unit_range
from emnist_jax.models.registry import IMAGE_SIZE, LOSSES
from emnist_jax.models.table import Layer, describe, layer_table
from emnist_jax.storage.arrays import format_size
from emnist_jax.storage.checkpoints import LARGEST
from emnist_jax.training.augment import (
    corrupt,
    deform_images,
    image_keys,
    shift_images,
)
from emnist_jax.training.feed import epoch_rows
from emnist_jax.training.loop import Plan, Validate
from emnist_jax.training.optimizer import (
    OPTIMIZERS,
    learning_rate_schedule,
    make_optimizer,
    reduce_on_plateau,
)
from emnist_jax.training.step import Loss, TrainState, create_state


def select(config: Config) -> Selection:
    """The images that a run trains on, chooses its best epoch by and tests on.

    Raises:
      UserError: the data set cannot be had, or is smaller than the subset asked for.
    """
    if config.images is not None:
        dataset = own.load(config.images, config.test_images, **_reading(config))
    else:
        dataset = load(
            config.dataset,
            data_dir=config.data_dir,
            emnist_archive=config.emnist_archive,
        )
    held_out = config.validation_fraction if config.validation == "holdout" else None
    return split_up(
        dataset, config.seed, config.train_examples, config.test_examples, held_out
    )


def _reading(config: Config) -> dict[str, Any]:
    names = ("reader", "value_range", "invert", "transposed", "convert", "resize")
    return {name: getattr(config, name) for name in names}


@dataclasses.dataclass(frozen=True)
class Training:
    """All that a run is trained with; none of it knows the settings.

    Attributes:
      table: the layers of the model.
      facts: what the results say of data, settings and model.
      architecture: what its checkpoints say of it.
      optimizer: with its schedule over the whole run.
      first_state: from parameters by part to start from, maybe none, to the state.
      loss: of one device's images.
      validate: judges the state after an epoch.
      plan: how long, and when to save.
      rows: of the training images, in the order of an epoch.
      placement: where the training images live, see `lives_on_device`.
      tensorboard: whether to write its events too.
      profile: whether to trace some steps.
    """

    table: list[Layer]
    facts: dict[str, Any]
    architecture: dict[str, Any]
    optimizer: optax.GradientTransformation
    first_state: Callable[[dict[str, Any]], TrainState]
    loss: Loss
    validate: Validate
    plan: Plan
    rows: Callable[[int], np.ndarray]
    placement: str
    tensorboard: bool
    profile: bool


def training(config: Config, splits: Selection) -> Training:
    """Composes the training of a run.

    Raises:
      UserError: a setting does not suit the images.
    """
    images, size = splits.train.images, splits.train.image_size
    parallel.check_batch_size(config.batch_size, len(images))
    model = autoencoder(config, float(images.mean(dtype=np.float64)) / 255, size)
    table = layer_table(model)
    facts = {"dataset": splits.facts, "config": dataclasses.asdict(config)}
    facts["model"] = describe(table)
    check_size(config, size, facts["model"]["parameters"]["total"])
    plan = Plan(
        epochs=config.epochs,
        steps_per_epoch=len(images) // config.batch_size,
        batch_size=config.batch_size,
        patience=config.early_stopping_patience,
        save_minutes=config.checkpoint_minutes,
        loss=config.loss,
    )
    transformation = optimizer(config, plan.steps_per_epoch * plan.epochs)
    return Training(
        table,
        facts,
        architecture(config, size),
        transformation,
        functools.partial(first_state, config, model, transformation),
        loss_of(config, model),
        validation(config, model, splits.validation.images),
        plan,
        functools.partial(epoch_rows, len(images), config.batch_size, config.seed),
        config.data_placement,
        config.tensorboard,
        config.profile,
    )


def architecture(
    config: Config, image_size: tuple[int, int] = IMAGE_SIZE
) -> dict[str, Any]:
    """What a checkpoint of either half must say to be loaded again."""
    names = ("decoder", "latent_dim", "latent_activation")
    return {name: getattr(config, name) for name in names} | {"image_size": image_size}


def autoencoder(
    config: Config,
    mean_pixel: float = 0.5,
    image_size: tuple[int, int] = IMAGE_SIZE,
) -> Autoencoder:
    """The model.

    Args:
      config: the run's settings.
      mean_pixel: mean of the training pixels in [0, 1], for `output_bias='mean'`.
      image_size: height and width of the images.
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
        image_size,
    )


def check_size(config: Config, size: tuple[int, int], parameters: int) -> None:
    """Raises `UserError` if a setting does not suit images of a height and width."""
    for name in ("hole", "shift_pixels"):
        value = getattr(config, name)
        if value > min(size) // 2:
            raise UserError(
                f"--{name}={value}: is more than half of images of "
                f"{format_size(size)} pixels"
            )
    if parameters > LARGEST // 16:  # the state of Adam is three float32 a parameter
        raise UserError(
            f"--latent_dim={config.latent_dim}: with images of {format_size(size)} "
            f"pixels that is {parameters:,} parameters, expected at most "
            f"{LARGEST // 16:,}"
        )


def optimizer(config: Config, total_steps: int) -> optax.GradientTransformation:
    """The optimiser with its schedule over `total_steps`."""
    schedule = learning_rate_schedule(
        config.schedule, config.learning_rate, config.warmup_steps, total_steps
    )
    frozen = None if config.freeze == "none" else config.freeze
    return make_optimizer(OPTIMIZERS[config.optimizer](), schedule, frozen)


def first_state(
    config: Config,
    model: Any,
    transformation: optax.GradientTransformation,
    initial: dict[str, Any] | None = None,
) -> TrainState:
    """The state before the first step.

    Args:
      config: the seed is used; initial values depend on it alone.
      model: an autoencoder.
      transformation: of `optimizer`.
      initial: parameters by part, 'encoder' or 'decoder', to start from instead.
    """

    def init(key: jax.Array, initial: dict[str, Any]) -> TrainState:
        params = model.init(key, jnp.zeros((1, *model.image_size, 1)))["params"]
        return create_state({**params, **initial}, transformation)

    return jax.jit(init)(jax.random.key(config.seed), initial or {})


def loss_of(config: Config, model: Any) -> Loss:
    """The loss of one device's uint8 images `[B, H, W, 1]`, as it is trained."""
    values_of = getattr(metrics, LOSSES[config.loss])

    def loss_fn(params: Any, images: jax.Array, step: jax.Array):
        place = config.seed, step, config.batch_size
        images = deform_images(images, config.deform, *place)
        images = shift_images(images, config.shift_pixels, *place)
        if config.freeze != "none":  # its gradient is not worth computing
            fixed = jax.lax.stop_gradient(params[config.freeze])
            params = {**params, config.freeze: fixed}
        targets = to_unit_range(images)
        keys = image_keys(*place, len(images))
        inputs = corrupt(targets, keys, config.noise, config.hole)
        outputs = model.apply({"params": params}, inputs).images
        outputs = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
        return jnp.mean(values_of(targets, outputs)), {
            # 0 when every output pixel of every image is the same constant.
            "output_range": parallel.range_over_devices(jax.lax.stop_gradient(outputs))
        }

    return loss_fn


def validation(config: Config, model: Any, images: np.ndarray) -> Validate:
    """What judges the state after an epoch, and lowers the rate on a plateau.

    With `config.noise` or `config.hole`, by how well it mends images.

    Args:
      config: the run's settings.
      model: an autoencoder.
      images: uint8 `[N, H, W, 1]`.
    """
    mends = config.noise or config.hole
    changes = (config.seed, config.noise, config.hole) if mends else (0, 0.0, 0)
    step = _validation_step(model, config.loss, *changes)
    rows = {"images": images, "number": np.arange(len(images), dtype=np.uint32)}

    def validate(state: TrainState) -> tuple[TrainState, dict[str, float]]:
        found = parallel.map_rows(step, state.exported, rows)
        latents = found.pop("latents")
        values = {k: float(v.mean(dtype=np.float64)) for k, v in found.items()}
        values["active_latents"] = int((np.ptp(latents, axis=0) > 0).sum())
        if config.schedule == "plateau":
            opt_state = reduce_on_plateau(
                state.opt_state, values["loss"], config.learning_rate
            )
            state = state.replace(opt_state=opt_state)
        return state, values

    return validate


@functools.cache
def _validation_step(
    model: Any, loss: str, seed: int, noise: float, hole: int
) -> Callable:
    values_of = getattr(metrics, LOSSES[loss])

    def step(params: Any, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
        targets = to_unit_range(rows["images"])
        of_image = functools.partial(jax.random.fold_in, jax.random.key(seed))
        inputs = corrupt(targets, jax.vmap(of_image)(rows["number"]), noise, hole)
        output = model.apply({"params": params}, inputs)
        outputs = output.images.astype(targets.dtype)
        values = values_of(targets, outputs)
        values = values.mean(axis=tuple(range(1, values.ndim)))
        found = {"loss": values, "latents": output.latents}
        return (
            found if loss == "mse" else found | {"mse": metrics.mse(targets, outputs)}
        )

    return step
