"""Blocks of images to bytes and back, whatever codes them.

A *coder* has `shape`, the shape of one image in what it codes; `plain(block, decoded)`,
what is stored where coding, which gives `decoded` or fails, does not pay;
`accepts(block, found)`, whether decoding may give `found`; `lanes(count)`; and, for
several blocks with equal lanes, `encode`, which returns streams and what decoding must
give, and `decode`. `PixelCoder` and `latent_coding.LatentCoder` are coders.
"""

import bz2
import concurrent.futures
import dataclasses
import math
import zlib
from collections.abc import Callable, Iterator

import numpy as np

from emnist_jax import cpu
from emnist_jax.cli.errors import UserError
from emnist_jax.codec import container, pixel_coding, rans, values
from emnist_jax.codec.integer_model import IntegerModel
from emnist_jax.storage.arrays import DEFLATE_RATIO

BATCH_PIXELS = 8192 * 784  # of the blocks coded together
DEVICE_BATCHES = 4  # times as many on an accelerator, whose loop takes long for few
# bzip2 is not tried where coding takes less than this share of the deflated bytes, and
# kept where it takes less than this share of the next best: it needs version 2.
BZIP_TRIED, BZIP_KEPT = 0.5, 0.98
Report = Callable[[int], None]  # told how many more images are done


def workers() -> int:
    """Threads that code side by side; with JAX one waits while another one codes."""
    return max(1 if cpu.wanted() else 2, cpu.threads())


def silent(images: int) -> None:
    """Reports nothing."""


def coded_together(head: container.Head, count: int) -> Iterator[range]:
    """Numbers of the `count` blocks coded together, in batches of about equal size."""
    pixels = head.block_images * head.height * head.width
    most = max(1, BATCH_PIXELS * (1 if cpu.wanted() else DEVICE_BATCHES) // pixels)
    pieces = -(-count // most)
    for piece in range(pieces):
        yield range(count * piece // pieces, count * (piece + 1) // pieces)


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
      weight: as for `pixel_coding.encode`; if given, pixels may be off by more.
    """

    model: IntegerModel
    shape: tuple[int, int]
    max_error: int = 0
    weight: int | None = None

    def plain(self, images: np.ndarray, decoded: np.ndarray | None) -> np.ndarray:
        """What is stored of uint8 [n, height, width] if coding does not pay."""
        if self.weight is not None and decoded is not None:
            return decoded  # its error is the one that was asked for
        return values.rounded(images, self.max_error)

    def accepts(self, images: np.ndarray, found: np.ndarray) -> bool:
        """Whether `found` may stand for `images`."""
        difference = np.abs(images.astype(np.int16) - found)
        return self.weight is not None or difference.max(initial=0) <= self.max_error

    def lanes(self, count: int) -> int:
        """Lanes of a block of `count` images."""
        return rans.lanes_of(count)

    def encode(
        self, blocks: list[np.ndarray], report: Callable
    ) -> tuple[list[bytes], np.ndarray]:
        """See `pixel_coding.encode`."""
        error, weight = self.max_error, self.weight
        return pixel_coding.encode(self.model, blocks, error, report, weight)

    def decode(
        self, streams: list[bytes], counts: list[int], report: Callable
    ) -> list[np.ndarray]:
        """See `pixel_coding.decode`."""
        return pixel_coding.decode(
            *(self.model, streams, counts, self.shape, self.max_error, report),
            lossy=self.weight is not None,
        )


def _silent(share: float) -> None:
    """Reports nothing."""


def _groups(lanes: list[int]) -> list[list[int]]:
    """Blocks with equal lanes together, in parts that are coded side by side."""
    groups = []
    for wanted in sorted(set(lanes)):
        group = [index for index, value in enumerate(lanes) if value == wanted]
        half = -(-len(group) // workers())
        groups += [group[start : start + half] for start in range(0, len(group), half)]
    return groups


def _side_by_side(function: Callable, groups: list[list[int]]) -> list:
    """Calls `function` with each group, in as many threads as pay."""
    if len(groups) == 1:
        return [function(groups[0])]
    with concurrent.futures.ThreadPoolExecutor(workers()) as pool:
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
        streams, written = coder.encode([blocks[index] for index in group], part)
        decoded = coder.decode(streams, counts, part)
        meant = np.split(written, np.cumsum(counts)[:-1])
        for index, *made in zip(group, streams, decoded, meant, strict=True):
            stream, found, wanted = made
            if np.array_equal(found, wanted) and coder.accepts(blocks[index], found):
                coded[index] = stream, found

    if math.prod(coder.shape) <= container.MOST_CODED_PIXELS:
        _side_by_side(code, _groups([coder.lanes(len(block)) for block in blocks]))
    stored = []
    for block, found in zip(blocks, coded, strict=True):
        rounded = np.ascontiguousarray(coder.plain(block, found and found[1]))
        plain = rounded.tobytes()
        deflated = zlib.compress(plain, 6)
        forms = []  # of equal lengths the first is kept
        if found is not None:
            forms.append((container.CODED, found[0], found[1].tobytes()))
        forms.append((container.DEFLATED, deflated, zlib.decompress(deflated)))
        forms.append((container.RAW, plain, plain))
        shortest = min(len(form[1]) for form in forms)
        if shortest > BZIP_TRIED * len(deflated):
            bzipped = _bzip(rounded)
            if len(bzipped) < BZIP_KEPT * shortest:
                again = _bunzip(bzipped, rounded.shape).tobytes()
                forms.append((container.BZIPPED, bzipped, again))
        right = [
            form
            for form in forms
            if container.fits(len(form[1]), len(block) * pixels)
            and (form[0] == container.CODED or form[2] == plain)
        ]
        kind, smallest, decoded = min(right, key=lambda form: len(form[1]))
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
    try:
        if entry.kind == container.BZIPPED:
            return _bunzip(payload, shape)
        if entry.kind == container.DEFLATED:
            if size > DEFLATE_RATIO * len(payload):
                raise ValueError("it is too short for its images")
            payload = zlib.decompressobj().decompress(payload, size + 1)
        if len(payload) != size:
            raise ValueError("it holds another number of pixels")
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise UserError(_damage(name, [entry], error)) from error
    return np.frombuffer(payload, np.uint8).reshape(shape)


def _bzip(block: np.ndarray) -> bytes:
    """A byte that says what follows, and the shorter bzip2 stream of two.

    0: of the values of `block`; 1: of the differences of rows, for images.
    """
    forms = [b"\0" + bz2.compress(block.tobytes())]
    if block.ndim == 3:
        rows = np.diff(block, axis=1, prepend=np.uint8(0))
        forms.append(b"\1" + bz2.compress(rows.tobytes()))
    return min(forms, key=len)


def _bunzip(payload: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Undoes `_bzip`; raises ValueError, OSError or EOFError where that fails."""
    if payload[:1] not in (b"\0", b"\1")[: len(shape) - 1]:
        raise ValueError("its first byte is unknown")
    size, stream = math.prod(shape), bz2.BZ2Decompressor()
    values = stream.decompress(payload[1:], size + 1)
    if len(values) != size or not stream.eof or stream.unused_data:
        raise ValueError("it holds another number of pixels")
    values = np.frombuffer(values, np.uint8).reshape(shape)
    return np.cumsum(values, 1, np.uint8) if payload[0] else values


def _damage(name: str, entries: list[container.Block], problem: object) -> str:
    first, last = entries[0].first, entries[-1].first + entries[-1].images - 1
    return f"{name} is damaged among images {first} to {last}: {problem}"
