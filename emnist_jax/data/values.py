"""Pixels of any type as uint8, and never with a loss that was not asked for."""

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.storage import spill

PIXELS = "uint8 in 0..255 or floats in 0..1"
_ROWS = 1024  # images converted at once
_NEAR = 0.02  # of a whole number, as of floats with four decimals
_NEAR_HALF = 0.13  # the same of float16


@dataclasses.dataclass(frozen=True)
class Options:
    """How images are read; each is a flag of the same name.

    Attributes:
      reader: a key of `images.FORMS`, where guessing from the content is wrong.
      split: 'train' or 'test', of what has both; None is 'test'.
      value_range: (low, high) or 'LOW:HIGH', which become 0 and 255, for other
        values than uint8 and floats in 0..1.
      invert: turn black ink on white paper into white on black.
      transposed: whether rows and columns are exchanged in the source; None is as is
        known of EMNIST's files, and not in others; 'yes' and 'no' for the flag.
      convert: allow what loses something: colour, alpha, more than 8 bits.
      resize: side of the square in whose middle each image is put before it is
        resampled to it; None refuses sizes that differ.
      emnist_archive: a copy of EMNIST in any form, for data sets by name.
      channel: leave an axis of one channel where the source has it; no flag.
      round_floats: take floats in 0..1 of which 255 times is no whole number without
        `convert`; no flag: for who does not promise the same pixels back.
    """

    reader: str | None = None
    split: str | None = None
    value_range: tuple[float, float] | str | None = None
    invert: bool = False
    transposed: bool | str | None = None
    convert: bool = False
    resize: int | None = None
    emnist_archive: str | os.PathLike | None = None
    channel: bool = False
    round_floats: bool = False

    def __post_init__(self):
        """Checks each value; those that come as text become what they say."""
        if self.split not in (None, "train", "test"):
            raise UserError(f"split={self.split} is unknown: give train or test")
        if self.resize is not None and not 1 <= self.resize <= 1024:
            raise UserError(f"resize={self.resize}: give a side of 1 to 1024 pixels")
        turns = {"yes": True, "no": False}
        if self.transposed not in (None, True, False, *turns):
            raise UserError(f"transposed={self.transposed}: give yes or no")
        turned = turns.get(self.transposed, self.transposed)
        object.__setattr__(self, "transposed", turned)
        if self.value_range is not None:
            object.__setattr__(self, "value_range", _range(self.value_range))


def _range(given: tuple[float, float] | str) -> tuple[float, float]:
    try:
        low, high = given.split(":") if isinstance(given, str) else given
        low, high = float(low), float(high)
        if not -np.inf < low < high < np.inf:
            raise ValueError
    except (TypeError, ValueError) as error:
        raise UserError(
            f"value_range={given}: give LOW:HIGH, two numbers of which the first is "
            "lower"
        ) from error
    return low, high


def to_bytes(pixels: np.ndarray, options: Options, name: str) -> np.ndarray:
    """Pixels of any numeric type as uint8 of the same shape.

    Raises:
      UserError: other values than uint8 and floats in 0..1 without `value_range`, or
        floats that 8 bits cannot hold without `convert` or `round_floats`.
    """
    if pixels.dtype.kind not in "buif":
        raise UserError(f"{name}: type {pixels.dtype}, expected {PIXELS}")
    if options.value_range is None:
        if pixels.dtype == np.uint8:
            return pixels
        if pixels.dtype.kind != "f":
            raise UserError(
                f"{name}: type {pixels.dtype}, expected {PIXELS}; or say what is "
                "black and white with --value_range=LOW:HIGH"
            )
    low, high = options.value_range or (0.0, 1.0)
    if not pixels.size:
        return pixels.astype(np.uint8)
    least, most = pixels.min(), pixels.max()
    if not np.isfinite([least, most]).all():
        raise UserError(f"{name}: a value is not finite")
    if least < low or most > high:
        expected = PIXELS if options.value_range is None else f"{low:g} to {high:g}"
        raise UserError(
            f"{name}: values from {least:g} to {most:g}, expected {expected}; name "
            "the range with --value_range=LOW:HIGH"
        )
    scaled = (pixels.astype(np.float64) - low) * (255 / (high - low))
    whole = np.round(scaled)
    if options.value_range is None and not (options.convert or options.round_floats):
        near = _NEAR_HALF if pixels.dtype.itemsize == 2 else _NEAR
        if np.abs(scaled - whole).max() > near:
            raise UserError(
                f"{name}: 255 times its floats are not whole numbers; round them to "
                "8 bits with --convert"
            )
    return whole.astype(np.uint8)


def to_gray(pixels: np.ndarray, options: Options, name: str) -> np.ndarray:
    """uint8 [N, H, W, channels] as [N, H, W].

    One channel, or three that are equal, lose nothing; an alpha channel must be opaque.
    Otherwise, with `convert`, over white paper and with Pillow's weights (ITU-R 601).
    """
    channels = pixels.shape[-1]
    if channels == 1:
        return pixels[..., 0]
    colours, alpha = pixels[..., : channels - (channels in (2, 4))], None
    if channels in (2, 4) and (pixels[..., -1] != 255).any():
        alpha = pixels[..., -1:].astype(np.uint16)
    same = (colours == colours[..., :1]).all()
    if not options.convert and not (same and alpha is None):
        what = "transparent" if alpha is not None else "in colour"
        raise UserError(
            f"{name}: is {what}, and models and codec take gray images; turn it gray "
            "with --convert"
        )
    if alpha is not None:
        colours = (colours * alpha + 255 * (255 - alpha) + 127) // 255
    if same:
        return colours[..., 0].astype(np.uint8)
    weights = np.array([19595, 38470, 7471], np.uint32)  # of 65536
    return ((colours @ weights + 32768) >> 16).astype(np.uint8)


def resized(images: np.ndarray, side: int) -> np.ndarray:
    """uint8 [N, H, W] in the middle of squares, resampled to [N, side, side].

    As EMNIST was made: padded with paper, then bicubic (Cohen et al., 2017, II-A).
    """
    from PIL import Image

    count, height, width = images.shape
    if (height, width) == (side, side):
        return images
    whole = max(height, width)
    top, left = (whole - height) // 2, (whole - width) // 2
    result = np.empty([count, side, side], np.uint8)
    for row, image in enumerate(images):
        border = [image[0], image[-1], image[:, 0], image[:, -1]]
        square = np.full([whole, whole], np.median(np.concatenate(border)), np.uint8)
        square[top : top + height, left : left + width] = image
        picture = Image.fromarray(square).resize([side, side], Image.Resampling.BICUBIC)
        result[row] = np.asarray(picture)
    return result


def chunks(array: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of an array, some thousands at a time; at least one piece."""
    for start in range(0, max(1, len(array)), _ROWS):
        yield np.asarray(array[start : start + _ROWS])


def gather(pieces: Iterable[np.ndarray], name: str) -> np.ndarray:
    """uint8 [b, H, W] one after the other as one array, kept as `storage.spill` does.

    A single piece comes back as it is.

    Raises:
      UserError: their sizes differ, there is none, or the disk is full.
    """
    pieces = iter(pieces)
    first, second = next(pieces, None), next(pieces, None)
    if first is None:
        raise UserError(f"{name}: holds no images")
    if second is None:
        return first
    side = first.shape[1:]

    def rows() -> Iterator[np.ndarray]:
        for piece in itertools.chain([first, second], pieces):
            if piece.shape[1:] != side:
                raise UserError(
                    f"{name}: holds images of {side[0]}x{side[1]} and of "
                    f"{piece.shape[1]}x{piece.shape[2]} pixels; bring them to one size "
                    "with --resize=SIDE"
                )
            yield np.ascontiguousarray(piece)

    return spill.keep(rows(), name).reshape(-1, *side)
