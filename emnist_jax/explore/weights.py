"""What of a run goes into the page: its layers, and their weights in half the bytes.

A kernel becomes 16-bit integers with a scale for each output: with as many bytes as
float16 pixels move ten times less. The upper bytes of integers of like size deflate.
"""

import zlib
from typing import Any

import jax
import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.models.decoders import FEATURES, Decoder
from emnist_jax.models.encoder import LAYERS
from emnist_jax.models.registry import IMAGE_SIZE
from emnist_jax.runs import Run
from emnist_jax.storage.arrays import format_size

LARGEST = 32767


def rounded(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A kernel [..., outputs] as int16, and the float32 scale of each output."""
    highest = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)))
    scale = np.where(highest > 0, highest / LARGEST, 1).astype(np.float32)
    return np.rint(kernel / scale).astype(np.int16), scale


def rounded_params(params: Any) -> Any:
    """Parameters of either half as the page computes with them."""

    def restored(leaf: Any) -> np.ndarray:
        leaf = np.asarray(leaf, np.float32)
        if leaf.ndim == 1:
            return leaf
        integers, scale = rounded(leaf)
        return integers * scale

    return jax.tree.map(restored, params)


def layers(run: Run) -> tuple[dict[str, list[dict]], bytes]:
    """The layers of both halves in the order in which they run, and their weights.

    Returns:
      {'encoder': ..., 'decoder': ...}, lists of what `page/autoencoder.mjs` reads of a
      layer; and for each layer its kernel as int16, scales and bias as float32: first
      the even bytes of all that, then the odd ones, deflated.

    Raises:
      UserError: half of the run is missing or of a kind that the page cannot compute.
    """
    (encoder, encoder_params), (decoder, decoder_params) = run.encoder, run.decoder
    if type(decoder) is not Decoder:
        raise UserError(
            f"{run.path}: the page computes decoders of transposed convolutions, not "
            f"{type(decoder).__name__}"
        )
    if run.image_size != IMAGE_SIZE:
        raise UserError(
            f"{run.path}: the page is for images of {format_size(IMAGE_SIZE)} pixels, "
            f"not {format_size(run.image_size)}"
        )
    size, chains = IMAGE_SIZE[0], {"encoder": [], "decoder": []}
    for number, (_, stride) in enumerate(LAYERS, start=1):
        chains["encoder"].append((f"conv{number}", "conv", stride, size, "relu"))
        size //= stride
    latent = ("latent", "dense", 1, 1, encoder.latent_activation)
    chains["encoder"].append(latent)
    chains["decoder"].append(("dense", "dense", 1, 1, "relu"))
    for number in range(1, len(FEATURES) + 1):
        stride = 2 if number == decoder.upsampling_layer else 1
        name = f"conv_transpose{number}"
        chains["decoder"].append((name, "conv_transpose", stride, size, "relu"))
        size *= stride
    chains["decoder"].append(("output", "conv_transpose", 1, size, "sigmoid"))
    described, content = {}, b""
    for part, params in (("encoder", encoder_params), ("decoder", decoder_params)):
        described[part] = []
        for name, kind, stride, size, activation in chains[part]:
            kernel = np.asarray(params[name]["kernel"], np.float32)
            integers, scale = rounded(kernel)
            bias = np.asarray(params[name]["bias"], np.float32)
            for array, dtype in ((integers, "<i2"), (scale, "<f4"), (bias, "<f4")):
                content += array.astype(dtype).tobytes()
            described[part].append(
                {
                    "kind": kind,
                    "stride": stride,
                    "size": size,
                    "kernel": kernel.shape,
                    "activation": activation,
                }
            )
    return described, zlib.compress(content[::2] + content[1::2], 9)
