"""Tries a compiled coder on images whose stream is known."""

import zlib

import numpy as np

from emnist_jax.codec.integer_form import PixelModelConfig
from emnist_jax.codec.integer_model import IntegerModel
from emnist_jax.codec.model_file import array_shapes
from emnist_jax.codec.native import calls
from emnist_jax.codec.native.machine import Machine

CONFIG = PixelModelConfig(10, 1, 6, 5, 3, 2)
# CRC-32 of what encoders write of `images`, and of what decoders read out of `stream`,
# by largest error; the form in JAX says so.
WRITTEN = {0: 3423858272, 2: 1580983011}
READ = {0: 3538348286, 2: 3700710170}


def _numbers(count: int, low: int, high: int) -> np.ndarray:
    """Whole numbers from `low` to `high` that look random, the same everywhere."""
    hashed = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(2654435761)
    return (hashed >> np.uint64(9)).astype(np.int64) % (high - low + 1) + low


def model() -> IntegerModel:
    """A model of no use."""
    arrays = {}
    for name, (shape, kind) in array_shapes(CONFIG).items():
        low, high = (4, 9) if name.endswith(".shift") else (-90, 90)
        arrays[name] = _numbers(int(np.prod(shape)), low, high).reshape(shape)
        arrays[name] = arrays[name].astype(np.dtype(kind).newbyteorder("="))
    return IntegerModel(CONFIG, arrays)


def images() -> np.ndarray:
    """uint8 [17, 3, 4]: more than a tile."""
    return np.maximum(_numbers(204, -150, 255), 0).astype("u1").reshape(17, 3, 4)


def stream() -> bytes:
    """Words enough for the images, as no encoder writes them."""
    return _numbers(1000, 1, 65535).astype("<u2").tobytes()


def passes(machine: Machine, encodes: bool, lossy: bool) -> bool:
    """Whether the machine does what it should."""
    max_error, block = 2 * lossy, images()
    job = calls.Job(machine, model(), [len(block)], block.shape[1:], max_error)
    if encodes:
        (found,), _ = calls.code(job, [block], lambda share: None)
        return zlib.crc32(found) == WRITTEN[max_error]
    calls.read_streams(job, [stream()])
    return zlib.crc32(job.code(lambda share: None)) == READ[max_error]
