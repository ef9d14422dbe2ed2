"""Images of equal size to streams and back, many blocks at once.

`native` does this in machine code, `device_coding` with JAX: where there is no LLVM,
with `EMNIST_JAX_CPU_LAYERS=0` (on accelerators), and for tests to compare.

Pixel by pixel in reading order, for all images of a batch together: easy pixels
first pass the gate; those that are not 0, and all hard ones, have their bin coded
and then their place in the bin or, near-lossless, the span they lie in. Encoder and
decoder run the same loop and differ in where the values come from.
"""

from collections.abc import Callable

import numpy as np

from emnist_jax import cpu
from emnist_jax.codec.integer_model import IntegerModel

_unusable = set()  # (encodes, lossy) whose machine code does not work here


def _native(encodes: bool, max_error: int):
    """`native` for CPUs; None where JAX is to do its work."""
    if not cpu.wanted() or (encodes, max_error > 0) in _unusable:
        return None
    try:
        from emnist_jax.codec import native

        native.prepared(encodes, max_error)
    except Exception as error:  # an LLVM that cannot be loaded, say
        if not _unusable:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            cpu.warn(
                f"the codec's machine code does not work here ({reason}); JAX is used, "
                "which is slower"
            )
        _unusable.add((encodes, max_error > 0))
        return None
    return native


def _device_coding():
    from emnist_jax.codec import device_coding  # loads JAX

    return device_coding


def encode(
    model: IntegerModel,
    blocks: list[np.ndarray],
    max_error: int = 0,
    report: Callable[[float], None] = lambda share: None,
    weight: int | None = None,
) -> tuple[list[bytes], np.ndarray]:
    """Codes blocks of images that have the same number of lanes.

    Args:
      model: the model to code with.
      blocks: uint8 [n, height, width] each.
      max_error: how far decoded pixels may be off.
      report: called with the share of the work done since the last call.
      weight: None, or for lossy files what a squared error of one grey level is worth
        in 2**-16 bits, below 2**32: a pixel may be off by more than `max_error` where
        that is cheaper; 0 if it costs anything.

    Returns:
      One stream a block, and what decoding all of them gives, uint8 [N, height,
      width].
    """
    form = _native(True, max_error) or _device_coding()
    return form.encode(model, blocks, max_error, report, weight)


def decode(
    model: IntegerModel,
    streams: list[bytes],
    counts: list[int],
    shape: tuple[int, int],
    max_error: int = 0,
    report: Callable[[float], None] = lambda share: None,
    lossy: bool = False,
) -> list[np.ndarray]:
    """Decodes what `encode` returned.

    Args:
      model: the same model.
      streams: one a block.
      counts: number of images in each block; all have the same number of lanes.
      shape: height and width of the images.
      max_error: as given to `encode`.
      report: called with the share of the work done since the last call.
      lossy: whether `encode` had a weight.

    Returns:
      uint8 [count, height, width] for each block.

    Raises:
      rans.CorruptStream: a stream is damaged in a way that shows here.
    """
    form = _native(False, max_error) or _device_coding()
    return form.decode(model, streams, counts, shape, max_error, report, lossy)
