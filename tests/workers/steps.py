"""Trains a few steps on however many devices and processes there are.

  python steps.py IMAGES.npy OUT.npz [COORDINATOR PROCESSES PROCESS_ID]

Writes, for each type and placement, the gradient of the first step, the losses
and the last parameters.
"""

import sys

import jax
import numpy as np

from emnist_jax import parallel
from emnist_jax.config import make_config
from emnist_jax.data.batches import epoch_rows
from emnist_jax.feed import Feed
from emnist_jax.step import create_state, make_model, make_train_step


def flat(tree):
    leaves = [np.asarray(x).ravel() for x in jax.tree.leaves(jax.device_get(tree))]
    return np.concatenate(leaves)


def train(images, dtype, placement):
    config = make_config(batch_size=32, decoder="model03", schedule="constant")
    model = make_model(config, images.mean() / 255)
    state = jax.device_get(create_state(config, model))
    state = jax.tree.map(
        lambda x: x.astype(dtype) if np.issubdtype(x.dtype, np.floating) else x, state
    )
    feed = Feed(images, make_train_step(config, model, 100), placement == "device")
    state = parallel.replicate(state)
    rows = epoch_rows(len(images), config.batch_size, seed=0, epoch=0)
    losses, gradient = [], None
    for part in (rows[:1], rows[1:]):
        for _, batch in feed.batches(part, first_epoch=False):
            state, values = feed.run(state, batch)
            losses.append(np.atleast_1d(values["loss"]))
        if gradient is None:  # Adam's mean after one step is a tenth of it
            gradient = flat(state.opt_state.mu) / 0.1
    return gradient, np.concatenate(losses), flat(state.params)


def main():
    images_path, out, *distributed = sys.argv[1:]
    if distributed:
        address, count, number = distributed
        jax.distributed.initialize(address, int(count), int(number))
    images = np.load(images_path)
    results = {}
    for name in ("float32_host", "float32_device", "float64_host"):
        dtype, placement = name.split("_")
        jax.config.update("jax_enable_x64", dtype == "float64")
        names = [f"{name}_{x}" for x in ("gradient", "losses", "end")]
        values = train(images, dtype, placement)
        results |= dict(zip(names, values, strict=True))
    if parallel.is_writer():
        np.savez(out, **results)
    parallel.barrier("written")


main()
