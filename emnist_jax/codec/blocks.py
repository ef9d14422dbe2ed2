"""Blocks of images to bytes and back, whatever codes them.

A *coder* has `shape`, the shape of one image in what it codes; `rounded(block)`,
what is stored where coding does not pay; `accepts(block, found)`, whether decoding
may give `found`; `lanes(count)`; and `encode` and `decode` for several blocks with
equal lanes. `PixelCoder` and `latent_coding.LatentCoder` are coders.
"""

import concurrent.futures
import dataclasses
import math
import zlib
from collections.abc import Callable, Iterator

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.codec import container, pixel_coding, rans, values
from emnist_jax.codec.integer_model import IntegerModel
from emnist_jax.storage.arrays import DEFLATE_RATIO

BATCH_PIXELS = 8192 * 784  # of the blocks coded together
WORKERS = 2  # one waits for the network while another runs the entropy coder
Report = Callable[[int], None]  # told how many more images are done


def silent(images: int) -> None:
    """Reports nothing."""


def coded_together(head: container.Head) -> Iterator[range]:
    """First images of the blocks coded together, in batches of about equal size."""
    starts = range(0, head.images, head.block_images)
    pixels = head.block_images * head.height * head.width
    most = max(1, BATCH_PIXELS // pixels)
    pieces = -(-len(starts) // most)
    for piece in range(pieces):
        low, high = (len(starts) * at // pieces for at in (piece, piece + 1))
        yield starts[low:high]


class WholeImages:
    """Turns shares of a batch into whole images."""

    def __init__(self, images: int, report: Report):
        """Takes the number of images in the batch, and whom to tell."""
        self._images, self._report, self._share, self._told = images, report, 0.0, 0

    def add(self, share: float) -> None:
        """Reports the images that a further `share` of the work stands for."""
        self._share += share
        self._tell(min(int(self._share * self._images), self._images))

    def end(self) -> None:
        """Reports the images still missing."""
        self._tell(self._images)

    def _tell(self, images: int) -> None:
        self._report(images - self._told)
        self._told = images


@dataclasses.dataclass(frozen=True)
class PixelCoder:
    """Codes pixels with a pixel model.

    Attributes:
      model: the pixel model.
      shape: height and width of an image.
      max_error: how far decoded pixels may be off.
    """

    model: IntegerModel
    shape: tuple[int, int]
    max_error: int = 0

    def rounded(self, images: np.ndarray) -> np.ndarray:
        """What is stored of uint8 [n, height, width] if coding does not pay."""
        return values.rounded(images, self.max_error)

    def accepts(self, images: np.ndarray, found: np.ndarray) -> bool:
        """Whether `found` may stand for `images`."""
        difference = np.abs(images.astype(np.int16) - found)
        return difference.max(initial=0) <= self.max_error

    def lanes(self, count: int) -> int:
        """Lanes of a block of `count` images."""
        return rans.lanes_of(count)

    def encode(self, blocks: list[np.ndarray], report: Callable) -> list[bytes]:
        """See `pixel_coding.encode`."""
        return pixel_coding.encode(self.model, blocks, self.max_error, report)[0]

    def decode(
        self, streams: list[bytes], counts: list[int], report: Callable
    ) -> list[np.ndarray]:
        """See `pixel_coding.decode`."""
        return pixel_coding.decode(
            self.model, streams, counts, *self.shape, self.max_error, report
        )


def _silent(share: float) -> None:
    """Reports nothing."""


def _groups(lanes: list[int]) -> list[list[int]]:
    """Blocks with equal lanes together, in two parts that are coded side by side."""
    groups = []
    for wanted in sorted(set(lanes)):
        group = [index for index, value in enumerate(lanes) if value == wanted]
        half = -(-len(group) // WORKERS)
        groups += [group[start : start + half] for start in range(0, len(group), half)]
    return groups


def _side_by_side(function: Callable, groups: list[list[int]]) -> list:
    """Calls `function` with each group; while one computes, another codes."""
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(function, groups))


def store(
    coder,
    blocks: list[np.ndarray],
    pixels: int,
    report: Callable[[float], None] = _silent,
) -> list[tuple[int, bytes, int]]:
    """Codes blocks, decodes them again and keeps the smallest right form of each.

    Args:
      coder: what codes them.
      blocks: uint8 [n, *coder.shape] each.
      pixels: of an image; what a block may claim is bounded in these.
      report: called with shares of the work.

    Returns:
      Kind, bytes and CRC-32 of the decoded block, for each block.
    """
    coded: list[tuple[bytes, np.ndarray] | None] = [None] * len(blocks)

    def code(group: list[int]) -> None:
        def part(share: float) -> None:
            report(share * len(group) / len(blocks) / 2)

        counts = [len(blocks[index]) for index in group]
        streams = coder.encode([blocks[index] for index in group], part)
        decoded = coder.decode(streams, counts, part)
        for index, stream, found in zip(group, streams, decoded, strict=True):
            if coder.accepts(blocks[index], found):
                coded[index] = stream, found

    if math.prod(coder.shape) <= container.MOST_CODED_PIXELS:
        _side_by_side(code, _groups([coder.lanes(len(block)) for block in blocks]))
    stored = []
    for block, found in zip(blocks, coded, strict=True):
        plain = np.ascontiguousarray(coder.rounded(block)).tobytes()
        deflated = zlib.compress(plain, 6)
        forms = [(container.RAW, plain, plain)]
        forms.append((container.DEFLATED, deflated, zlib.decompress(deflated)))
        if found is not None:
            forms.append((container.CODED, found[0], found[1].tobytes()))
        right = [
            form
            for form in forms
            if container.fits(len(form[1]), len(block) * pixels)
            and (form[0] == container.CODED or form[2] == plain)
        ]
        kind, smallest, decoded = min(right, key=lambda form: (len(form[1]), -form[0]))
        stored.append((kind, smallest, zlib.crc32(decoded)))
    return stored


def load(
    coder,
    entries: list[container.Block],
    payloads: list[bytes],
    name: str,
    report: Callable[[float], None] = _silent,
) -> list[np.ndarray]:
    """Decodes blocks and checks their CRC-32.

    Args:
      coder: what coded them.
      entries: their places in the index.
      payloads: their bytes.
      name: the file, for errors.
      report: called with shares of the work.

    Returns:
      uint8 [n, *coder.shape] each.

    Raises:
      UserError: a block is damaged.
    """
    found: list[np.ndarray | None] = [None] * len(entries)
    coded = [i for i, entry in enumerate(entries) if entry.kind == container.CODED]

    def decode(group: list[int]) -> None:
        chosen = [coded[index] for index in group]
        try:
            decoded = coder.decode(
                [payloads[index] for index in chosen],
                [entries[index].images for index in chosen],
                lambda share: report(share * len(chosen) / len(entries)),
            )
        except rans.CorruptStream as error:
            damage = _damage(name, [entries[index] for index in chosen], error)
            raise UserError(damage) from error
        for index, pixels in zip(chosen, decoded, strict=True):
            found[index] = pixels

    _side_by_side(
        decode, _groups([coder.lanes(entries[index].images) for index in coded])
    )
    for index, entry in enumerate(entries):
        if entry.kind != container.CODED:
            shape = (entry.images, *coder.shape)
            found[index] = _plain(entry, payloads[index], shape, name)
        if zlib.crc32(np.ascontiguousarray(found[index])) != entry.checksum:
            raise UserError(_damage(name, [entry], "its pixels fail their checksum"))
    return found


def _plain(
    entry: container.Block, payload: bytes, shape: tuple[int, ...], name: str
) -> np.ndarray:
    size = math.prod(shape)
    if entry.kind == container.DEFLATED:
        inflate = zlib.decompressobj()
        if size > DEFLATE_RATIO * len(payload):
            raise UserError(_damage(name, [entry], "it is too short for its images"))
        try:
            payload = inflate.decompress(payload, size + 1)
        except zlib.error as error:
            raise UserError(_damage(name, [entry], error)) from error
    if len(payload) != size:
        raise UserError(_damage(name, [entry], "it holds another number of pixels"))
    return np.frombuffer(payload, np.uint8).reshape(shape)


def _damage(name: str, entries: list[container.Block], problem: object) -> str:
    first, last = entries[0].first, entries[-1].first + entries[-1].images - 1
    return f"{name} is damaged among images {first} to {last}: {problem}"
