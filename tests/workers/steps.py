"""Trains a few steps on however many devices and processes there are.

  python steps.py IMAGES.npy OUT.npz [COORDINATOR PROCESSES PROCESS_ID]

Writes, for each type and placement, the gradient of the first step, the losses
and the last parameters.
"""

import sys

import jax
import numpy as np

from emnist_jax.config import compose, make_config
from emnist_jax.devices import parallel, processes
from emnist_jax.training.feed import epoch_rows, make_feed
from emnist_jax.training.step import make_train_step


def flat(tree):
    leaves = [np.asarray(x).ravel() for x in jax.tree.leaves(jax.device_get(tree))]
    return np.concatenate(leaves)


def train(images, dtype, placement):
    config = make_config(
        batch_size=32, decoder="model03", schedule="constant", optimizer="adam"
    )
    model = compose.autoencoder(config, images.mean() / 255)
    optimizer = compose.optimizer(config, 100)
    state = jax.device_get(compose.first_state(config, model, optimizer))
    state = jax.tree.map(
        lambda x: x.astype(dtype) if np.issubdtype(x.dtype, np.floating) else x, state
    )
    state = parallel.replicate(state)
    rows = epoch_rows(len(images), config.batch_size, seed=0, epoch=0)
    parts, losses, gradient = (rows[:1], rows[1:]), [], None
    step, batches = make_feed(
        make_train_step(compose.loss_of(config, model), optimizer),
        images,
        parts.__getitem__,
        placement == "device",
    )
    for part in range(len(parts)):
        for _, batch in batches(part, 0):
            state, values = step(state, batch)
            losses.append(np.atleast_1d(values["loss"]))
        if gradient is None:  # Adam's mean after one step is a tenth of it
            gradient = flat(state.opt_state[0][0].mu) / 0.1
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
    if processes.is_writer():
        np.savez(out, **results)
    processes.barrier("written")


main()
