"""Autoencoders trained to mend images, beside one that never saw damage, and filters.

  python -m experiments.denoising --workdir=W --init_from=pretrained/model02 \
      --emnist_archive=gzip.zip                     # 12 trainings of 400 steps

Noise of three strengths and a black square of 8x8 pixels: for each and every seed, RUN
is trained on with `--noise` or `--hole`. What counts is the mean squared error against
the whole test images. Each training leaves one JSON file in W; one that is there is not
trained again. `denoising.json` and `denoising.md` are made from those files alone.
"""

import functools
import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from emnist_jax.cli.arguments import count
from emnist_jax.cli.command import run_command
from emnist_jax.cli.errors import UserError
from emnist_jax.config import Config, compose, make_config
from emnist_jax.data.selection import Selection
from emnist_jax.runs import load_run
from emnist_jax.runs.transfer import initial_weights
from emnist_jax.training.augment import corrupt
from emnist_jax.training.step import make_train_step
from experiments import pca, study, tables, training
from experiments.claims import reconstruct

TASKS = {
    "noise 0.1": {"noise": 0.1},
    "noise 0.2": {"noise": 0.2},
    "noise 0.3": {"noise": 0.3},
    "hole 8x8": {"hole": 8},
}
# Method -> what it is called; the first and the last are the same weights before and
# after the training.
METHODS = {
    "as it is": "nothing done",
    "median": "median, 3x3",
    "means": "non-local means",
    "components": "128 components",
    "autoencoder": "autoencoder",
    "trained": "trained for it",
}


def damaged(images: np.ndarray, config: Config, seed: int) -> np.ndarray:
    """Images uint8 `[N, H, W, 1]` as `config` has them go in, float32 in [0, 1]."""
    of_image = functools.partial(jax.random.fold_in, jax.random.key(seed))
    keys = jax.vmap(of_image)(np.arange(len(images), dtype=np.uint32))
    whole = images.astype(np.float32) / 255
    return np.asarray(corrupt(whole, keys, config.noise, config.hole))


def non_local_means(images: np.ndarray, noise: float) -> np.ndarray:
    """Buades et al. 2005, as scikit-image's documentation sets it for known noise."""
    from skimage.restoration import denoise_nl_means

    options = dict(patch_size=5, patch_distance=6, h=0.8 * noise, sigma=noise)
    found = [denoise_nl_means(image[..., 0], **options) for image in images]
    return np.clip(np.array(found, np.float32)[..., None], 0, 1)


def train(config: Config, data: Selection, steps: int, folder: pathlib.Path):
    """Trains on from `config.init_from`; the model, parameters before and after."""
    images, size = data.train.images, data.train.image_size
    model = compose.autoencoder(config, image_size=size)
    architecture = compose.architecture(config, size)
    before, _ = initial_weights(config.init_from, "none", architecture)
    if len(before) < 2:
        raise UserError(
            f"--init_from={config.init_from}: encoder or decoder is missing"
        )
    optimizer = compose.optimizer(config, steps)
    after = training.train(
        images,
        compose.first_state(config, model, optimizer, before),
        make_train_step(compose.loss_of(config, model), optimizer),
        compose.validation(config, model, data.validation.images),
        training.Length(steps, config.batch_size, config.seed),
        folder,
    )
    return model, before, after


def measure(config: Config, task: str, steps: int, folder: pathlib.Path) -> dict:
    """A row: task, seed, and mean squared errors by the keys of `METHODS`."""
    from scipy.ndimage import median_filter

    data = compose.select(config)
    model, before, after = train(config, data, steps, folder)
    images = data.test.images
    inputs = damaged(images, config, config.seed)
    components = pca.fit(data.train.images, 128)
    outputs = {
        "as it is": inputs,
        "median": median_filter(inputs, (1, 3, 3, 1)),
        "components": components.decode(components.encode(inputs)),
        "autoencoder": reconstruct(model, before, inputs),
        "trained": reconstruct(model, after, inputs),
    }
    if config.noise:
        outputs["means"] = non_local_means(inputs, config.noise)
    whole = images.astype(np.float32) / 255
    errors = {
        name: float(((found - whole) ** 2).mean(dtype=np.float64))
        for name, found in outputs.items()
    }
    return {"task": task, "seed": config.seed, "mse": errors}


def summarise(rows: list[dict]) -> list[dict]:
    """Means over seeds of every task's errors."""
    cells = []
    for task in TASKS:
        runs = [row["mse"] for row in rows if row["task"] == task]
        cell = {"task": task, "n": len(runs)}
        for name in METHODS:
            cell |= tables.mean_and_std(name, (r[name] for r in runs if name in r))
        cells.append(cell)
    return cells


def format_markdown(cells: list[dict]) -> str:
    """The summary as a Markdown table of test MSE."""
    return tables.markdown(
        " | ".join(("damage", "n", *METHODS.values())),
        (
            (
                cell["task"],
                cell["n"],
                *(tables.plus_minus(cell, name, 4) for name in METHODS),
            )
            for cell in cells
        ),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command of the module's docstring."""
    parser = study.StudyParser(__doc__, "scipy", "skimage")
    add = parser.add_argument
    add("--init_from", help="finished run to start from")
    add("--steps", type=count, default=400, help="of each training")
    add("--learning_rate", type=float, default=2e-3, help="highest, of each training")
    parser.add_runs(epochs=None)
    flags = parser.parse_args(argv)
    workdir, measures = pathlib.Path(flags.workdir), {}
    if flags.runs:
        if flags.init_from is None:
            raise UserError("--init_from is missing: the finished run to start from")
        names = "steps", "learning_rate"
        source = load_run(flags.init_from, flag="--init_from").path.name
        study.claim_folder(workdir, "denoising", flags, *names, init_from=source)
        settings = study.given(flags, *study.SHARED, *study.PATHS, "learning_rate")
        for seed in range(flags.seeds):
            for task, damage in TASKS.items():
                start = {"init_from": flags.init_from, "seed": seed}
                config = make_config(**settings, **start, **damage)
                name = f"{task.replace(' ', '-')}-seed{seed}"
                given = config, task, flags.steps, workdir / name
                measures[name] = functools.partial(measure, *given)
    rows = study.measured(workdir, measures)
    cells = summarise(rows)
    summary = {"rows": rows, "cells": cells}
    study.write(workdir / "denoising", summary, format_markdown(cells))


if __name__ == "__main__":
    run_command(main)
