"""`codec train`: a pixel model for images like those at hand."""

import argparse
import dataclasses
import os
import shlex

import numpy as np

from emnist_jax.cli import console
from emnist_jax.cli.errors import UserError
from emnist_jax.cli.interrupts import Interrupts
from emnist_jax.codec import (
    fit,
    inputs,
    integer_model,
    model_file,
    quantise,
    sampler,
    writer,
)
from emnist_jax.codec.commands import outputs
from emnist_jax.codec.integer_form import PixelModelConfig
from emnist_jax.storage import paths

SIZES = ("width", "blocks", "fine_width", "gate_width")


def train(arguments: argparse.Namespace) -> None:
    """Trains a pixel model and writes a model file."""
    outputs.check_ending(arguments.out, ".ejm")
    read = inputs.files_of(arguments.images)
    paths.check_output(arguments.out, *read, arguments.emnist_archive, arguments.start)
    images = inputs.images_of(arguments, "train").images
    config = fit.PixelTraining(
        model=PixelModelConfig(**{name: getattr(arguments, name) for name in SIZES}),
        minutes=arguments.minutes,
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        max_error=_error(arguments.max_error),
        seed=arguments.seed,
    )
    start = None
    if arguments.start is not None:
        before, _, _ = model_file.load(arguments.start)
        _check_start(arguments.start, before.config, config.model)
        start = quantise.dequantise(before.arrays, fit.init_params(config))
    elif config.max_error:
        raise UserError(f"--max_error={config.max_error}: needs --start=MODEL")
    plain = writer.plain_images(images, arguments.images)
    folder = arguments.folder or f"{arguments.out}.training"
    figures = train_model(arguments.out, plain, config, folder, start)
    lasted = console.format_duration(60 * figures["minutes"])
    out = shlex.quote(arguments.out)
    print(
        f"{arguments.out}: {os.path.getsize(arguments.out):,} bytes, "
        f"{figures['bpp_quantised']:.4f} bits per pixel on held-out images "
        f"({figures['steps']:,} steps, {lasted})\n"
        f"To use it: emnist-jax codec compress IMAGES FILE.ejx --model={out}"
    )


def train_model(
    out: str,
    images: np.ndarray,
    config: fit.PixelTraining,
    folder: str | os.PathLike,
    start: dict | None = None,
) -> dict:
    """Trains on uint8 [N, height, width], writes a model file, returns the figures."""
    with Interrupts().noted():
        held_out = sampler.hold_out_distinct(images, config.seed)
        params, figures = fit.fit(config, *held_out, folder, start)
    integers = quantise.quantise(config.model, params)
    model_file.save(out, integer_model.IntegerModel(config.model, integers))
    return figures


def _check_start(name: str, before: PixelModelConfig, config: PixelModelConfig) -> None:
    for size, needed in dataclasses.asdict(before).items():
        given = getattr(config, size)
        if given < needed:
            raise UserError(
                f"--{size}={given}: is less than that of --start={name}; give at "
                f"least {needed}"
            )


def _error(flag: int) -> int:
    if not 0 <= flag <= 127:
        raise UserError(f"--max_error={flag} is out of range: give 0 to 127")
    return flag
