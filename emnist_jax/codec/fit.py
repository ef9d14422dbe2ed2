"""The training loop of a pixel model: resumable, limited by its own running time."""

import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from emnist_jax import files, parallel
from emnist_jax.arrays import read_archive
from emnist_jax.codec import integer_form, pixel_coding
from emnist_jax.codec.integer_model import IntegerModel
from emnist_jax.codec.pixel_model import PixelModel
from emnist_jax.codec.train import (
    PixelSampler,
    TrainConfig,
    TrainState,
    easy_bits,
    hard_bits,
    init_params,
    init_state,
    train_step,
)
from emnist_jax.errors import UserError

EVALUATION_PIECE = 8192  # pixels a forward pass
CODED_TOGETHER = 4096  # images
LONGEST_STEP = 5.0  # seconds; what is over was a pause of the machine
EASY_SHARE = 4  # hard pixels of a batch for each easy one


def bits_per_pixel(
    config: TrainConfig, params: dict, sampler: PixelSampler, quantise: bool
) -> float:
    """Mean bits per pixel of all images of `sampler`, an estimate without a file."""
    model = PixelModel(config.model)
    estimate = {
        "easy": jax.jit(lambda p, pixels: easy_bits(model, p, pixels, quantise)),
        "hard": jax.jit(
            lambda p, pixels: hard_bits(model, p, pixels, quantise, config.max_error)
        ),
    }
    total = 0.0
    for kind, pixels, count in sampler.every(EVALUATION_PIECE):
        total += float(estimate[kind](params, pixels)[:count].sum())
    return total / sampler.pixels


def learning_rate(config: TrainConfig, progress: float) -> float:
    """Warm-up, then a cosine down to 0, for `progress` in [0, 1]."""
    cosine = 0.5 * (1 + np.cos(np.pi * min(progress, 1.0)))
    return config.learning_rate * min(progress / config.warmup, 1.0) * cosine


def hold_out(images: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits distinct images into those to train on and 3% to judge by, 3000 at most.

    Args:
      images: uint8 [N, height, width]; of equal ones the first counts.
      seed: which are held out.

    Raises:
      UserError: fewer than 2 distinct images.
    """
    _, first = np.unique(images.reshape(len(images), -1), axis=0, return_index=True)
    if len(first) < 2:
        raise UserError(f"training needs at least 2 distinct images, not {len(first)}")
    first = np.random.default_rng(seed).permutation(np.sort(first))
    held = max(1, min(3000, len(first) * 3 // 100))
    return images[np.sort(first[held:])], images[np.sort(first[:held])]


def checkpoint(folder: str | os.PathLike) -> pathlib.Path:
    """Where a training keeps its state."""
    return pathlib.Path(folder) / "pixel_model.npz"


def save(path: str | os.PathLike, state: TrainState, about: dict) -> None:
    """Writes a checkpoint: the leaves of `state` and a JSON object."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
    arrays = {f"leaf{index}": leaf for index, leaf in enumerate(leaves)}
    with files.write_atomically(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, about=np.frombuffer(json.dumps(about).encode(), "u1"), **arrays)


def restore(path: str | os.PathLike, fresh: TrainState) -> tuple[TrainState, dict]:
    """Reads what `save` wrote into the shape of `fresh`.

    Raises:
      UserError: the file is not a checkpoint of such a state.
    """
    leaves, structure = jax.tree.flatten(fresh)
    try:
        names = [f"leaf{index}" for index in range(len(leaves))]
        arrays = read_archive(path, lambda _: ["about", *names])
        about = json.loads(arrays["about"].tobytes())
        read = [arrays[name] for name in names]
    except (ValueError, RecursionError) as error:
        raise UserError(f"cannot resume from {path}: {error}") from error
    for old, new in zip(leaves, read, strict=True):
        if old.shape != new.shape:
            raise UserError(
                f"cannot resume from {path}: it holds a model of another size"
            )
    return jax.tree.unflatten(structure, [jnp.asarray(leaf) for leaf in read]), about


def _progress(config: TrainConfig, step: int, seconds: float) -> float:
    """Share of the training that is over."""
    return step / config.steps if config.steps else seconds / (60 * config.minutes)


def decoded(model: IntegerModel, images: np.ndarray, max_error: int) -> np.ndarray:
    """What near-lossless coding of uint8 [N, height, width] with `model` gives."""
    pieces = range(0, len(images), CODED_TOGETHER)
    found = [
        pixel_coding.encode(model, [images[at : at + CODED_TOGETHER]], max_error)[1]
        for at in pieces
    ]
    return np.concatenate(found)


def _draw(config: TrainConfig, sampler: PixelSampler, step: int) -> dict:
    rng = np.random.default_rng([config.seed, step])
    batch = sampler.draw(rng, config.batch_size, config.batch_size // EASY_SHARE)
    return jax.tree.map(parallel.put_split, batch)


def fit(
    config: TrainConfig,
    images: np.ndarray,
    held_out: np.ndarray,
    folder: str | os.PathLike,
    *,
    report: Callable[[dict], None],
    start: dict | None = None,
    save_every: float = 180.0,
) -> tuple[dict, dict]:
    """Trains, or goes on where a run in `folder` stopped.

    Args:
      config: how. A run of another configuration is not continued.
      images: uint8 [N, height, width] to train on.
      held_out: uint8 [M, height, width] to judge on; none of `images` is in it.
      folder: where the checkpoint `pixel_model.npz` is kept.
      report: called with a dictionary of figures after each save.
      start: parameters to begin with; None for fresh ones. To train for an error
        bound, contexts are pixels as a coder with these parameters gives them back:
        another call that starts with the result comes closer to the model's own.
      save_every: seconds between checkpoints.

    Returns:
      The averaged parameters, and a dictionary of figures: `steps`, `minutes`,
      `bpp_float` and `bpp_quantised` on `held_out`.

    Raises:
      UserError: a setting is impossible, or `folder` holds another training.
    """
    parallel.check_fork()
    devices = jax.device_count()
    if config.batch_size < 1 or config.batch_size % (EASY_SHARE * devices):
        raise UserError(
            f"--batch_size={config.batch_size}: must be divisible by "
            f"{EASY_SHARE * devices}, {EASY_SHARE} times the number of devices"
        )
    path = checkpoint(folder)
    seen, judged = images, held_out
    if config.max_error:
        if start is None:
            raise UserError(f"--max_error={config.max_error} needs --start")
        model = IntegerModel(config.model, integer_form.quantise(config.model, start))
        seen, judged = (decoded(model, x, config.max_error) for x in (images, held_out))
    sampler, judge = PixelSampler(images, seen), PixelSampler(held_out, judged)
    quick = PixelSampler(held_out[:300], judged[:300])
    settings = json.loads(json.dumps(dataclasses.asdict(config)))
    state = init_state(init_params(config) if start is None else start)
    seconds = 0.0
    if path.exists():
        state, about = restore(path, state)
        if about["config"] != settings:
            raise UserError(
                f"{path} belongs to another configuration; use a new folder"
            )
        seconds = about["seconds"]
    steps = {
        quantise: parallel.pmapped(
            train_step(config, quantise), (None, None, 0), None, donate_first=True
        )
        for quantise in (False, True)
    }
    step = int(state.step)
    saved, last = seconds, time.monotonic()
    batch = _draw(config, sampler, step)
    while (progress := _progress(config, step, seconds)) < 1:
        rate = np.float32(learning_rate(config, progress))
        quantise = progress >= config.quantise_from
        state, metrics = steps[quantise](state, rate, batch)
        step += 1
        batch = _draw(config, sampler, step)  # while the step computes
        jax.block_until_ready(metrics)
        now = time.monotonic()
        seconds, last = seconds + min(now - last, LONGEST_STEP), now
        if seconds - saved >= save_every:
            saved = seconds
            save(path, state, {"config": settings, "seconds": seconds})
            bpp = bits_per_pixel(config, state.average, quick, quantise)
            metrics = {name: float(value) for name, value in metrics.items()}
            report({"step": step, "seconds": round(seconds), **metrics, "bpp": bpp})
            last = time.monotonic()
    save(path, state, {"config": settings, "seconds": seconds})
    average = jax.device_get(state.average)
    return average, {
        "steps": step,
        "minutes": seconds / 60,
        "bpp_float": bits_per_pixel(config, average, judge, False),
        "bpp_quantised": bits_per_pixel(config, average, judge, True),
    }
