"""A pixel model of fixed random integers, so small that codec tests are quick."""

import functools
import pathlib

import numpy as np

from emnist_jax import codec
from emnist_jax.codec import integer_form, model_file
from emnist_jax.codec.integer_model import IntegerModel
from emnist_jax.codec.pixel_model import PixelModelConfig

GOLDEN = pathlib.Path(__file__).parent / "golden"


@functools.cache
def tiny_model() -> IntegerModel:
    """A model that knows nothing but is exact like any other."""
    config = PixelModelConfig(width=24, blocks=1, fine_width=16, gate_width=8)
    rng = np.random.default_rng(7)
    arrays = {}
    for name, shape in integer_form.layer_shapes(config).items():
        weight = np.clip(rng.normal(0, 40, shape), -127, 127)
        arrays[f"{name}.weight"] = weight.astype(np.int8)
        arrays[f"{name}.shift"] = rng.integers(8, 11, shape[1]).astype(np.uint8)
        arrays[f"{name}.bias"] = rng.integers(-900, 900, shape[1]).astype(np.int16)
    for name, shape in integer_form.table_shapes(config).items():
        arrays[name] = rng.integers(-900, 900, shape).astype(np.int16)
    return IntegerModel(config, arrays)


def tiny_file(folder: pathlib.Path) -> str:
    """Writes the model into `folder` and returns the path of its file."""
    path = folder / "tiny.ejm"
    model_file.save(path, tiny_model())
    return str(path)


def golden_images() -> np.ndarray:
    """uint8 [40, 28, 28]: discs and noise, from integer arithmetic alone."""
    y, x = np.mgrid[:28, :28]
    images = []
    for index in range(40):
        distance = (y - 8 - index % 13) ** 2 + (x - 9 - index % 11) ** 2
        images.append(np.clip(6 * (30 + 2 * index - distance), 0, 255))
    images = np.array(images, np.uint8)
    images[39] = (np.arange(784) * 2654435761 % 2**32 >> 24).reshape(28, 28)
    return images


class PoolingAutoencoder:
    """An autoencoder without training, exact on every machine: means of 7x7 pixels."""

    decoder = (None, {"weights": np.full(1, 1 / 49, np.float32)})

    def encode(self, images: np.ndarray) -> np.ndarray:
        """[n, 28, 28, 1] uint8 to latents float32 [n, 16]."""
        pools = images.reshape(len(images), 4, 7, 4, 7).astype(np.int64).sum((2, 4))
        return pools.reshape(len(images), 16).astype(np.float32)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """[n, 16] to float32 [n, 28, 28, 1] in [0, 1]."""
        pools = np.floor(latents / 49 + 0.5).reshape(-1, 4, 4)
        pixels = pools.repeat(7, axis=1).repeat(7, axis=2)
        return (pixels / 255).astype(np.float32)[..., None]


def golden_contents(folder: pathlib.Path) -> dict[str, bytes]:
    """Compresses the golden images in each mode."""
    options = {"model": tiny_file(folder), "embed_model": True, "block_images": 24}
    modes = {
        "lossless": options,
        "near-lossless": {**options, "max_error": 3},
        "latent": {"run": PoolingAutoencoder(), "bits": 5, "block_images": 24},
    }
    return {
        mode: codec.compress(golden_images(), mode=mode, **chosen)
        for mode, chosen in modes.items()
    }
