"""emnist_jax: its real train step, and its encoder and decoder."""

import importlib.metadata
import time

import jax
import jax.numpy as jnp
import numpy as np

from emnist_jax import cpu
from emnist_jax.cli import backend
from emnist_jax.config import compose, make_config
from emnist_jax.devices import parallel
from emnist_jax.training.step import make_train_step
from experiments.benchmarks.peers.protocol import Run, serve


def build(
    decoder: str, images: np.ndarray, latents: np.ndarray, dtype: str = "float32"
) -> dict[str, Run]:
    """The measures of `serve`."""
    settings = {"batch_size": len(images), "compute_dtype": dtype}
    config = make_config(preset="robust", decoder=decoder, **settings)  # Adam as peers
    model = compose.autoencoder(config)
    optimizer = compose.optimizer(config, total_steps=1_000_000)
    train_step = make_train_step(compose.loss_of(config, model), optimizer)
    compiled = parallel.pmapped(train_step, (None, 0), None, donate_first=True)
    state = parallel.replicate(compose.first_state(config, model, optimizer))
    params = jax.tree.map(jnp.copy, state.params)  # the state's own are donated
    images, latents = parallel.put_split(images), parallel.put_split(latents)

    def train(count: int) -> None:
        nonlocal state
        for _ in range(count):
            state, metrics = compiled(state, images)
        jax.block_until_ready((state, metrics))

    def half(method: str, batch: jax.Array) -> Run:
        function = parallel.pmapped(
            lambda params, batch: model.apply({"params": params}, batch, method=method),
            (None, 0),
            0,
        )

        def run(count: int) -> None:
            for _ in range(count):
                output = function(params, batch)
                output.block_until_ready()

        return run

    return {
        "train": train,
        "encode": half("encode", images),
        "decode": half("decode", latents),
    }


def matrix_product() -> float:
    """Multiply-adds a second of a float32 matrix product of 2048 x 2048."""
    size = 2048
    matrix = jnp.full((size, size), 1 / size)
    product = jax.jit(jnp.matmul)
    product(matrix, matrix).block_until_ready()
    start = time.perf_counter()
    for _ in range(5):
        product(matrix, matrix).block_until_ready()
    return 5 * size**3 / (time.perf_counter() - start)


if __name__ == "__main__":
    cpu.prepare_process()
    backend.start()
    packages = ("jax", "jaxlib", "flax", "optax", "llvmlite")
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    serve(build, versions, {"matrix_product": matrix_product})
