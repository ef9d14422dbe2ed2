"""Plain `flax.linen` modules and optax, compiled with XLA's default options."""

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from emnist_jax.models import decoders, encoder
from experiments.benchmarks.peers.protocol import Run, serve


class Encoder(nn.Module):
    """The encoder of all models."""

    dtype: str

    @nn.compact
    def __call__(self, x):
        """[B, 28, 28, 1] to [B, 32]."""
        kind = {"dtype": self.dtype}
        for features, stride in encoder.LAYERS:
            x = nn.relu(nn.Conv(features, (3, 3), strides=(stride, stride), **kind)(x))
        return nn.Dense(32, **kind)(x.reshape((x.shape[0], -1)))


class Decoder(nn.Module):
    """One of the decoders."""

    upsampling_layer: int
    dtype: str

    @nn.compact
    def __call__(self, z):
        """[B, 32] to [B, 28, 28, 1]."""
        kind = {"dtype": self.dtype}
        x = nn.relu(nn.Dense(14 * 14 * 64, **kind)(z)).reshape((z.shape[0], 14, 14, 64))
        for number, features in enumerate(decoders.FEATURES, start=1):
            stride = 2 if number == self.upsampling_layer else 1
            strides = (stride, stride)
            x = nn.relu(nn.ConvTranspose(features, (3, 3), strides=strides, **kind)(x))
        return nn.sigmoid(nn.ConvTranspose(1, (3, 3), **kind)(x))


def build(
    decoder: str, images: np.ndarray, latents: np.ndarray, dtype: str = "float32"
) -> dict[str, Run]:
    """The measures of `serve`."""
    x, z = jnp.asarray(images / 255, jnp.float32), jnp.asarray(latents)
    upsampling_layer = decoders.make_decoder(decoder).upsampling_layer
    halves = Encoder(dtype), Decoder(upsampling_layer, dtype)
    keys = jax.random.split(jax.random.key(0))
    params = [m.init(k, v) for m, k, v in zip(halves, keys, (x, z), strict=True)]
    optimizer = optax.adam(1e-3)

    def loss_fn(params, x):
        latents = halves[0].apply(params[0], x)
        return jnp.mean((halves[1].apply(params[1], latents) - x) ** 2)

    @jax.jit
    def step(params, opt_state, x):
        loss, gradients = jax.value_and_grad(loss_fn)(params, x)
        updates, opt_state = optimizer.update(gradients, opt_state)
        return optax.apply_updates(params, updates), opt_state, loss

    state = params, optimizer.init(params)

    def train(count: int) -> None:
        nonlocal state
        for _ in range(count):
            *state, loss = step(*state, x)
        jax.block_until_ready((state, loss))

    def half(module, params, batch) -> Run:
        function = jax.jit(module.apply)

        def run(count: int) -> None:
            for _ in range(count):
                function(params, batch).block_until_ready()

        return run

    encode = half(halves[0], params[0], x)
    return {
        "train": train,
        "encode": encode,
        "decode": half(halves[1], params[1], z),
    }


if __name__ == "__main__":
    serve(build, {"jax": jax.__version__, "flax": flax.__version__})
