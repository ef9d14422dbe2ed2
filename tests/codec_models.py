"""A pixel model so small that codec tests are quick, and what they code with it."""

import pathlib
import zlib

import numpy as np

from emnist_jax import codec
from emnist_jax.codec import blocks, container, integer_network, model_file
from emnist_jax.codec.integer_model import IntegerModel

GOLDEN = pathlib.Path(__file__).parent / "golden"
TINY = str(GOLDEN / "codec_model.ejm")  # 24 units wide, trained on discs and blobs


def tiny_model() -> IntegerModel:
    """The model in `TINY`."""
    return model_file.load(TINY)[0]


class Network:
    """What `integer_network` makes of pixels, in NumPy arrays.

    Contexts are uint8 [n, 112], rows and columns int [n]; tables are cumulative.
    """

    def __init__(self, model: IntegerModel):
        self.config, self.arrays = model.config, model.arrays
        self._operands = integer_network.operands_of(model.arrays, model.config)

    def gate(self, contexts, row, column):
        """Frequency of 0 for easy pixels, int32 [n]."""
        found = integer_network.gate(self._operands, contexts, row, column)
        return np.asarray(found)

    def coarse(self, contexts, row, column):
        """Features float32 [n, width], and a table of bins int32 [n, 22]."""
        given = self.config.blocks, contexts, row, column
        found = integer_network.coarse(self._operands, *given)
        return tuple(map(np.asarray, found))

    def fine(self, hidden, bins):
        """A table of the places in a bin, int32 [n, 16]."""
        return np.asarray(integer_network.fine(self._operands, hidden, bins))

    def values(self, hidden, coarse, max_error):
        """A table of spans, their phase int [n], and the mean value in each span."""
        given = max_error, hidden, coarse
        found = integer_network.values(self._operands, *given)
        return tuple(map(np.asarray, found))


def golden_images() -> np.ndarray:
    """uint8 [40, 28, 28]: soft discs with grain, from integer arithmetic alone."""
    y, x = np.mgrid[:28, :28]
    hashed = np.arange(40 * 784, dtype=np.uint64) * np.uint64(2654435761)
    grain = (hashed >> np.uint64(13) & np.uint64(7)).astype(np.int64)
    images = []
    for index in range(40):
        distance = (y - 8 - index % 13) ** 2 + (x - 9 - index % 11) ** 2
        images.append(np.clip(6 * (30 + 2 * index - distance), 0, 247))
    images = np.array(images)
    images += np.where(images > 0, grain.reshape(images.shape), 0)
    return images.astype(np.uint8)


def strokes(count):
    """uint8 [count, 28, 28]: thick curves, blurred and sampled as EMNIST's images."""
    rng = np.random.default_rng(1)
    time, (y, x) = np.linspace(0, 6, 80)[:, None, None], np.mgrid[:60, :60]
    taps = np.exp(-(np.arange(-2.5, 3) ** 2) / 2)
    blur = np.zeros((28, 60))
    for row in range(28):
        blur[row, 2 * row : 2 * row + 6] = taps / taps.sum()
    images = []
    for _ in range(count):
        a, b, c = rng.uniform(0.4, 1.2, 3)
        curve_y, curve_x = (
            30 + 18 * np.sin(a * time + 6 * c),
            30 + 16 * np.cos(b * time),
        )
        ink = ((y - curve_y) ** 2 + (x - curve_x) ** 2).min(axis=0) < 14
        images.append(255 * (blur @ ink @ blur.T))
    return np.array(images).astype(np.uint8)


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


def golden_contents(images: np.ndarray | None = None) -> dict[str, bytes]:
    """Compresses the golden images, or others but for latents, in each mode.

    And, as `version-2`, inverted with labels and names. Latent files are turned; one
    that is not, `codec_latent.ejx`, nothing writes any more.
    """
    images = golden_images() if images is None else images
    options = {"model": TINY, "embed_model": True, "block_images": 24}
    modes = {
        "lossless": options,
        "near-lossless": {**options, "max_error": 3},
        "lossy": {**options, "mse": 0.0005},
    }
    contents = {
        mode: codec.compress(images, mode=mode, **chosen)
        for mode, chosen in modes.items()
    }
    latent = {"run": PoolingAutoencoder(), "bits": 5, "block_images": 24}
    contents["latent-turned"] = codec.compress(golden_images(), mode="latent", **latent)
    kept = {"labels": np.arange(len(images)) % 7 - 1}
    kept["names"] = [f"{i % 3}/{i}.png" for i in range(len(images))]
    contents["version-2"] = codec.compress(~images, invert=True, **kept, **options)
    return contents


def coded_content(
    images: np.ndarray, block_images: int, max_error: int = 0, embed: bool = False
) -> bytes:
    """A file whose blocks are all coded with `TINY`, even where that does not pay."""
    model, digest, content = model_file.load(TINY)
    coder = blocks.PixelCoder(model, images.shape[1:], max_error)
    starts = range(0, len(images), block_images)
    parts = [np.ascontiguousarray(images[at : at + block_images]) for at in starts]
    streams, _ = coder.encode(parts, lambda share: None)
    found = coder.decode(streams, [len(part) for part in parts], lambda share: None)
    embedded = content if embed else b""
    head = container.Head(
        mode=container.NEAR_LOSSLESS if max_error else container.LOSSLESS,
        digest=digest,
        images=len(images),
        height=images.shape[1],
        width=images.shape[2],
        block_images=block_images,
        parameter=max_error,
        model_length=len(embedded),
    )
    entries = [
        (container.CODED, len(stream), zlib.crc32(np.ascontiguousarray(pixels)))
        for stream, pixels in zip(streams, found, strict=True)
    ]
    return container.pack(head, entries) + embedded + b"".join(streams)


def drawn_pixels(images):
    """Pixels of images [N, 28, 28, 1], hard and easy ones, as trainings draw them."""
    from emnist_jax.codec.sampler import PixelSampler

    sampler = PixelSampler(images[:8, ..., 0])
    return sampler.draw(np.random.default_rng(0), hard=90, easy=40)


def places(pixels):
    """Rows and columns of drawn pixels."""
    return np.divmod(pixels["pixel"], 28)
