"""Trains a pixel model with the loop that trains everything here."""

import dataclasses
import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emnist_jax.cli import console
from emnist_jax.cli.errors import UserError
from emnist_jax.codec import context, pixel_coding, quantise
from emnist_jax.codec.integer_form import PixelModelConfig
from emnist_jax.codec.integer_model import IntegerModel
from emnist_jax.codec.pixel_model import (
    PixelModel,
    bits_per_pixel,
    easy_bits,
    hard_bits,
)
from emnist_jax.codec.sampler import PixelSampler
from emnist_jax.devices import parallel
from emnist_jax.storage import files
from emnist_jax.storage.checkpoints import StepCheckpoints
from emnist_jax.storage.results import MetricsLog
from emnist_jax.training import optimizer
from emnist_jax.training.loop import Plan, Validate
from emnist_jax.training.loop import fit as train
from emnist_jax.training.step import Loss, Step, create_state, make_train_step

IMAGES_AT_ONCE = 4096  # images
EASY_SHARE = 4  # hard pixels of a batch for each easy one
QUICK_IMAGES = 300  # held-out images that judge an epoch
EPOCHS = 20  # how often a training is judged and its best state kept
TIMED_STEPS = 10  # to find out how many steps there are in a minute


@dataclasses.dataclass(frozen=True)
class PixelTraining:
    """How a pixel model is trained.

    Attributes:
      model: its sizes.
      minutes: length of the training, made into steps by the speed of the first ones.
      steps: its length in steps instead, which makes it repeatable; 0 for none.
      batch_size: hard pixels a step; a quarter as many easy ones come on top.
      learning_rate: the highest rate, after the warm-up; it falls to 0 by a cosine.
      warmup: share of the training over which the rate rises.
      quantise_from: share of the training after which the forward pass rounds as
        the integer form will.
      average: decay of the averaged parameters, which are the result.
      max_error: the near-lossless error bound to train for, 0 for lossless.
      seed: of the initial parameters and the order of pixels.
    """

    model: PixelModelConfig = PixelModelConfig()
    minutes: float = 60.0
    steps: int = 0
    batch_size: int = 4096
    learning_rate: float = 0.011
    warmup: float = 0.01
    quantise_from: float = 0.75
    average: float = 0.995
    max_error: int = 0
    seed: int = 0


def init_params(config: PixelTraining, inputs: int = context.NEIGHBOURS) -> dict:
    """Fresh parameters for contexts of so many inputs."""
    one = jnp.zeros((1,), jnp.int32)
    return jax.jit(PixelModel(config.model).init)(
        jax.random.key(config.seed), jnp.zeros((1, inputs)), one, one, one
    )["params"]


def decoded(model: IntegerModel, images: np.ndarray, max_error: int) -> np.ndarray:
    """What near-lossless coding of uint8 [N, height, width] with `model` gives."""
    pieces = range(0, len(images), IMAGES_AT_ONCE)
    found = [
        pixel_coding.encode(model, [images[at : at + IMAGES_AT_ONCE]], max_error)[1]
        for at in pieces
    ]
    return np.concatenate(found)


def fit(
    config: PixelTraining,
    images: np.ndarray,
    held_out: np.ndarray,
    folder: str | os.PathLike,
    start: dict | None = None,
) -> tuple[dict, dict]:
    """Trains on images, or goes on where a training in `folder` stopped.

    Args:
      config: how. A training of another configuration is not continued.
      images: uint8 [N, height, width] to train on.
      held_out: uint8 [M, height, width] to judge on; none of `images` is in it.
      folder: where checkpoints and the log are kept.
      start: parameters to begin with; None for fresh ones. To train for an error
        bound, contexts are pixels as a coder with these parameters gives them back:
        another call that starts with the result comes closer to the model's own.

    Returns:
      The averaged parameters, and a dictionary of figures: `steps`, `minutes`,
      `bpp_float` and `bpp_quantised` on `held_out`.

    Raises:
      UserError: a setting is impossible, or `folder` holds another training.
    """
    seen, judged = images, held_out
    if config.max_error:
        if start is None:
            raise UserError(f"max_error={config.max_error} needs a model to start from")
        model = IntegerModel(config.model, quantise.quantise(config.model, start))
        seen, judged = (decoded(model, x, config.max_error) for x in (images, held_out))
    judge = PixelSampler(held_out, judged)
    quick = PixelSampler(held_out[:QUICK_IMAGES], judged[:QUICK_IMAGES])
    params, figures = fit_samplers(
        config, PixelSampler(images, seen), quick, pathlib.Path(folder), start
    )
    with console.doing("measuring"):
        for name, rounded in (("bpp_float", False), ("bpp_quantised", True)):
            figures[name] = bits_per_pixel(
                PixelModel(config.model), params, judge, rounded, config.max_error
            )
    return params, figures


def fit_samplers(
    config: PixelTraining,
    sampler: PixelSampler,
    judge: PixelSampler,
    folder: pathlib.Path,
    start: dict | None = None,
) -> tuple[dict, dict]:
    """`fit` on pixels; the figures are `steps` and `minutes` alone.

    Args:
      config: how.
      sampler: pixels to train on.
      judge: pixels that choose the best epoch.
      folder: as for `fit`.
      start: as for `fit`.
    """
    devices = jax.device_count()
    if config.batch_size < 1 or config.batch_size % (EASY_SHARE * devices):
        raise UserError(
            f"batch_size={config.batch_size}: must be divisible by "
            f"{EASY_SHARE * devices}, {EASY_SHARE} times the number of devices"
        )
    inputs = sampler.draw(np.random.default_rng(0), 1, 1)["hard"]["context"].shape[1]
    params = init_params(config, inputs) if start is None else start
    steps = _steps(config, folder, lambda: _seconds_a_step(config, params, sampler))
    transformation = optimizer_of(config, steps)
    first_rounded = math.ceil(config.quantise_from * steps)
    epochs = max(n for n in range(1, min(EPOCHS, steps) + 1) if steps % n == 0)
    plan = Plan(
        epochs,
        steps // epochs,
        config.batch_size,
        save_minutes=3.0,
        loss="bits per pixel",
        unit="pixels",
    )

    def batches(epoch: int, first: int) -> Iterator[tuple[int, Any]]:
        start = epoch * plan.steps_per_epoch
        for number in range(start + first, start + plan.steps_per_epoch):
            yield 1, (number >= first_rounded, _draw(config, sampler, number))

    average, progress = train(
        create_state(params, transformation, average=True),
        _rounding_step(config, transformation),
        batches,
        _validation(config, judge),
        StepCheckpoints(folder / "checkpoints", console.warn),
        MetricsLog(folder / "metrics.jsonl"),
        plan,
    )
    return average, {"steps": steps, "minutes": progress.seconds / 60}


def optimizer_of(config: PixelTraining, steps: int):
    """Muon for hidden matrices, Adam for the rest."""

    def hidden(path: tuple, value: jax.Array) -> bool:
        return path[-1].key == "kernel" and min(value.shape) > 32

    schedule = optimizer.learning_rate_schedule(
        "cosine", config.learning_rate, int(config.warmup * steps), steps
    )
    return optimizer.make_optimizer(optimizer.muon(hidden), schedule)


def loss_of(config: PixelTraining, quantise: bool) -> Loss:
    """Bits of this device's hard and easy pixels, as they are trained."""
    model = PixelModel(config.model)

    def loss_fn(params: dict, batch: dict, step: jax.Array):
        del step
        hard = hard_bits(model, params, batch["hard"], quantise, config.max_error)
        easy = easy_bits(model, params, batch["easy"], quantise)
        hard, easy = hard.mean(), easy.mean()
        means = parallel.mean_over_devices(
            jax.lax.stop_gradient({"hard_bits": hard, "easy_bits": easy})
        )
        return hard + easy, means

    return loss_fn


def _rounding_step(config: PixelTraining, transformation: Any) -> Step:
    """The step; each batch says whether the forward pass rounds."""
    compiled = {
        quantise: parallel.pmapped(
            make_train_step(loss_of(config, quantise), transformation, config.average),
            (None, 0),
            None,
            donate_first=True,
        )
        for quantise in (False, True)
    }
    return lambda state, batch: compiled[batch[0]](state, batch[1])


def _draw(config: PixelTraining, sampler: PixelSampler, step: int) -> dict:
    rng = np.random.default_rng([config.seed, step])
    batch = sampler.draw(rng, config.batch_size, config.batch_size // EASY_SHARE)
    return jax.tree.map(parallel.put_split, batch)


def _validation(config: PixelTraining, judge: PixelSampler) -> Validate:
    model = PixelModel(config.model)

    def validate(state):
        params = jax.device_get(state.exported)
        # Rounded from the beginning: that is what will be used.
        bpp = bits_per_pixel(model, params, judge, True, config.max_error)
        return state, {"loss": bpp}

    return validate


def _steps(config: PixelTraining, folder: pathlib.Path, time_a_step: Callable) -> int:
    """Length of the training in steps; the same again when it is resumed.

    Raises:
      UserError: `folder` holds another training, or something else.
    """
    path = folder / "training.json"
    settings = json.loads(json.dumps(dataclasses.asdict(config)))
    if path.exists():
        stored = files.read_json(path)
        if stored.get("config") != settings or not isinstance(stored.get("steps"), int):
            raise UserError(
                f"{path} belongs to another configuration; use a new folder"
            )
        return stored["steps"]
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} holds something else; name a new folder")
    steps = config.steps
    if not steps:
        with console.doing("timing the first steps"):
            wanted = 60 * config.minutes / time_a_step()
        steps = EPOCHS * max(1, round(wanted / EPOCHS))
    files.write_json(path, {"config": settings, "steps": steps})
    return steps


def _seconds_a_step(
    config: PixelTraining, params: dict, sampler: PixelSampler
) -> float:
    transformation = optimizer_of(config, 1000)
    step = _rounding_step(config, transformation)
    state = parallel.replicate(create_state(params, transformation, average=True))
    started = 0.0
    for number in range(TIMED_STEPS + 1):
        state, metrics = step(state, (False, _draw(config, sampler, number)))
        jax.block_until_ready(metrics)
        started = started or time.monotonic()  # the first one compiles
    return (time.monotonic() - started) / TIMED_STEPS
