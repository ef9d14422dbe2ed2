"""Quantised latents: a uniform grid, and autoencoders trained on through it."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from emnist_jax.devices import parallel
from emnist_jax.models.autoencoder import to_unit_range
from emnist_jax.runs import Run
from emnist_jax.training.optimizer import (
    OPTIMIZERS,
    learning_rate_schedule,
    make_optimizer,
)
from emnist_jax.training.step import create_state, make_train_step
from experiments import training


class Grid:
    """A uniform quantiser of each column, fitted to training rows."""

    def __init__(self, rows: np.ndarray, bits: int):
        """Fits `2**bits` levels a column to `rows` float32 [N, D].

        Of several ranges around the middle of a column's own, the one with the
        smallest squared error: few levels do better without the outliers.
        """
        self.levels = 2**bits
        low, high = rows.min(axis=0), rows.max(axis=0)
        best = np.full(rows.shape[1], np.inf)
        self.low, self.step = low, np.ones_like(low)
        for share in np.linspace(1, 0.2, 17, dtype=np.float32):
            margin = (1 - share) * (high - low) / 2
            step = np.maximum(share * (high - low), 1e-6) / (self.levels - 1)
            values = quantise(rows, low + margin, step, self.levels)
            error = ((rows - values) ** 2).mean(axis=0)
            better = error < best
            best = np.where(better, error, best)
            self.low = np.where(better, low + margin, self.low)
            self.step = np.where(better, step, self.step)

    def values(self, rows: np.ndarray) -> np.ndarray:
        """What is left of rows float32 [N, D]; out of range, the nearest level."""
        return quantise(rows, self.low, self.step, self.levels)


def quantise(rows, low, step, levels: int):
    """The nearest of the levels `low + k * step`, 0 <= k < levels, of each column.

    Args:
      rows: floats `[N, D]`, NumPy's or JAX'; so is the result.
      low: `[D]`.
      step: `[D]`, above 0.
      levels: how many.
    """
    places = ((rows - low[None]) / step[None]).round().clip(0, levels - 1)
    return low[None] + places * step[None]


def tune(
    run: Run, grid: Grid, images: np.ndarray, steps: int, folder: pathlib.Path
) -> Run:
    """The run trained on through the grid; gradients pass its rounding unchanged.

    Where a latent is out of the grid's range its gradient is 0: without that, latents
    drift away (by 57 steps of a 4-bit grid within 150 steps of training).

    Args:
      run: the trained model; its files stay as they are.
      grid: fitted to its latents; stays as it is too.
      images: uint8 `[N, 28, 28, 1]`.
      steps: of Adam at 5e-4, falling to 0 by a cosine.
      folder: for checkpoints and the log.
    """
    (encoder, encoder_params), (decoder, decoder_params) = run.encoder, run.decoder
    low, width = jnp.asarray(grid.low), jnp.asarray(grid.step)

    def squared_error(params, images):
        targets = to_unit_range(images)
        latents = encoder.apply({"params": params["encoder"]}, targets)
        latents = latents.clip(low[None], (low + (grid.levels - 1) * width)[None])
        rounded = quantise(latents, low, width, grid.levels)
        latents += jax.lax.stop_gradient(rounded - latents)
        outputs = decoder.apply({"params": params["decoder"]}, latents)
        return (outputs - targets) ** 2

    def loss_fn(params, images, step):
        del step
        return squared_error(params, images).mean(), {}

    def per_image(params, images):
        return squared_error(params, images).mean(axis=(1, 2, 3))

    def validate(state):
        errors = parallel.map_rows(per_image, state.params, images[:1000])
        return state, {"loss": float(errors.mean(dtype=np.float64))}

    schedule = learning_rate_schedule("cosine", 5e-4, 0, steps)
    optimizer = make_optimizer(OPTIMIZERS["adam"](), schedule)
    params = {"encoder": encoder_params, "decoder": decoder_params}
    devices = jax.device_count()
    batch_size = min(128, len(images)) // devices * devices
    params = training.train(
        images,
        create_state(params, optimizer),
        make_train_step(loss_fn, optimizer),
        validate,
        training.Length(steps, batch_size),
        folder,
    )
    tuned = Run(run.path)
    tuned.encoder, tuned.decoder = (
        (encoder, params["encoder"]),
        (decoder, params["decoder"]),
    )
    return tuned
