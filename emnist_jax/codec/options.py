"""How images are compressed, and checks of it."""

import dataclasses
import operator
import os

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.codec import container, latent_coding, lossy, model_file


@dataclasses.dataclass(frozen=True)
class Options:
    """How images are compressed.

    Attributes:
      mode: `lossless`, `near-lossless`, `lossy` or `latent`.
      max_error: 1 to 127 for `near-lossless`, how far a pixel may be off.
      model: a shipped pixel model or a model file; None for `default` or, in mode
        `near-lossless` and `lossy`, for the one that suits the error.
      mse: for `lossy` and `latent`, the mean squared error to reach, of white 1.
      bytes_per_image: for them, the size to reach instead.
      embed_model: whether the pixel model goes into the file.
      run: for `latent`, a trained autoencoder from `emnist_jax.load_run`.
      bits: for `latent` without these, how fine latents are cut, 1 to 8 (None: 8):
        along the direction that they vary most there are 2**bits levels.
      refine: for `latent`, steps of a search for the latents that decode to an image
        best, from those of the encoder; each takes as long as three decodings.
      block_images: images a block at most; fewer make single images faster to
        read and the file larger. None chooses 16 of 28x28 (of others as many pixels),
        `LARGE_BLOCK` where the pixel model does not pay, and `LATENT_BLOCK`.
      invert: whether 255 minus the pixels is coded, for black ink on white paper;
        decoding turns them back.
      inverted: with `invert`, whether the images given are turned already.
    """

    mode: str = "lossless"
    max_error: int = 0
    mse: float | None = None
    bytes_per_image: float | None = None
    model: str | os.PathLike | None = None
    embed_model: bool = False
    run: object = None
    bits: int | None = None
    refine: int = latent_coding.REFINE
    block_images: int | None = None
    invert: bool = False
    inverted: bool = False

    def checked(self) -> "Options":
        """The same with whole numbers and a model; raises `UserError` if wrong."""
        if not isinstance(self.mode, str) or self.mode not in container.MODES:
            modes = ", ".join(container.MODES)
            raise UserError(f"mode={self.mode} is unknown: give {modes}")
        near = self.mode == "near-lossless"
        max_error = _whole("max_error", self.max_error, int(near), 127)
        if max_error and not near:
            raise UserError(f"max_error={max_error} needs mode=near-lossless")
        lossy.check_target(self.mode, self.mse, self.bytes_per_image, self.bits)
        bits = self.bits
        if bits is None and self.mse is None and self.bytes_per_image is None:
            bits = latent_coding.MOST_BITS
        model = self.model
        if model is None and self.mode != "lossy":  # which has no error yet
            model = model_file.name_for(max_error)
        return dataclasses.replace(
            self,
            max_error=max_error,
            model=model,
            bits=None if bits is None else _whole("bits", bits, 1, 8),
            refine=_whole("refine", self.refine, 0, 1000),
            block_images=None
            if self.block_images is None
            else _whole("block_images", self.block_images, 1, np.inf),
        )


def _whole(name: str, value: object, low: int, high: float) -> int:
    """Checks a whole number from `low` to `high`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = low - 1
    if not low <= number <= high:
        limits = f"{low} to {high}" if high < np.inf else f"{low} or more"
        raise UserError(
            f"{name}={value} is out of range: give a whole number, {limits}"
        )
    return number
