"""A study's training of so many steps, by the loop of the main job."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from emnist_jax.cli.console import warn
from emnist_jax.storage.checkpoints import StepCheckpoints
from emnist_jax.storage.results import MetricsLog
from emnist_jax.training.feed import make_feed, step_rows
from emnist_jax.training.loop import Plan, Validate, fit
from emnist_jax.training.step import Step, TrainState


@dataclasses.dataclass(frozen=True)
class Length:
    """Steps of a training, images a step, and the seed of their order."""

    steps: int
    batch_size: int
    seed: int = 0


def train(
    images: np.ndarray,
    state: TrainState,
    train_step: Step,
    validate: Validate,
    length: Length,
    folder: pathlib.Path,
) -> Any:
    """Trains, or goes on where a training in `folder` stopped.

    Args:
      images: uint8 `[N, 28, 28, 1]`.
      state: before the first step.
      train_step: from `make_train_step`.
      validate: judges the end.
      length: how long.
      folder: of this training alone, for checkpoints and the log.

    Returns:
      The parameters after the last step, as NumPy arrays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = step_rows(len(images), length.batch_size, length.seed, length.steps)
    step, batches = make_feed(train_step, images, lambda epoch: rows)
    plan = Plan(1, length.steps, length.batch_size)
    checkpoints = StepCheckpoints(folder / "checkpoints", warn)
    log = MetricsLog(folder / "metrics.jsonl")
    params, _ = fit(state, step, batches, validate, checkpoints, log, plan)
    return params
