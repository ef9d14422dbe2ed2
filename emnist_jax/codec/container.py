"""The head of a compressed file: what it holds and where its blocks are.

docs/codec_format.md describes every byte.
"""

import dataclasses
import math
import zlib

from emnist_jax.cli.errors import UserError

MAGIC = b"EJX1"
LOSSLESS, NEAR_LOSSLESS, LATENT = range(3)
MODES = ("lossless", "near-lossless", "latent")
TRAILING_AXIS, EMBEDDED = 0x40, 0x80  # flags in the byte of the mode
RAW, DEFLATED, CODED = range(3)  # kinds of blocks
MOST_SIDE = 1 << 16  # pixels of a side
MOST_BLOCK_PIXELS = 1 << 22
MOST_CODED_PIXELS = 1 << 14  # of an image; the time a block takes grows with it
PIXELS_A_BYTE = 4096  # no block claims more


@dataclasses.dataclass(frozen=True)
class Block:
    """An entry of the index.

    Attributes:
      kind: `RAW`, `DEFLATED` or `CODED`.
      length: bytes in the file.
      checksum: CRC-32 of the block's decoded pixels.
      images: how many it holds.
      first: index of the first of them.
      offset: where its bytes start in the file.
    """

    kind: int
    length: int
    checksum: int
    images: int
    first: int
    offset: int


@dataclasses.dataclass(frozen=True)
class Head:
    """Everything before the blocks.

    Attributes:
      mode: `LOSSLESS`, `NEAR_LOSSLESS` or `LATENT`.
      digest: 4 bytes that name the model.
      images: number of images.
      height: of each, in pixels.
      width: of each, in pixels.
      block_images: images in every block but the last.
      parameter: largest error of a pixel if near-lossless, bits of a latent if
        latent, else 0.
      trailing_axis: whether the images came as [N, height, width, 1].
      model_length: bytes of the embedded model, 0 without.
      blocks: the index.
    """

    mode: int
    digest: bytes
    images: int
    height: int
    width: int
    block_images: int
    parameter: int = 0
    trailing_axis: bool = False
    model_length: int = 0
    blocks: tuple[Block, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the decoded array."""
        shape = (self.images, self.height, self.width)
        return (*shape, 1) if self.trailing_axis else shape


def fits(length: int, pixels: int) -> bool:
    """Whether a block of `length` bytes may claim so many pixels of images."""
    return pixels <= PIXELS_A_BYTE * length


def images_per_block(images: int, pixels: int, most: int = 1024) -> int:
    """Images of each block, so that all blocks are about equal.

    Args:
      images: of the file.
      pixels: of an image.
      most: largest number wanted.
    """
    most = max(1, min(most, MOST_BLOCK_PIXELS // max(1, pixels)))
    return max(1, math.ceil(images / max(1, math.ceil(images / most))))


def write_varint(value: int) -> bytes:
    """Seven bits a byte, lowest first; the top bit says that more follow."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def pack(head: Head, entries: list[tuple[int, int, int]]) -> bytes:
    """Writes a head.

    Args:
      head: without blocks.
      entries: kind, length and checksum of each block.
    """
    flags = TRAILING_AXIS * head.trailing_axis | EMBEDDED * bool(head.model_length)
    out = bytearray(MAGIC)
    out.append(head.mode | flags)
    out += head.digest
    numbers = [head.images, head.height, head.width, head.block_images]
    if head.mode != LOSSLESS:
        numbers.append(head.parameter)
    if head.model_length:
        numbers.append(head.model_length)
    for number in numbers:
        out += write_varint(number)
    for kind, length, checksum in entries:
        out += write_varint(length << 2 | kind) + checksum.to_bytes(4, "little")
    return bytes(out) + zlib.crc32(out).to_bytes(4, "little")


class _Cursor:
    """Reads numbers from a file's start."""

    def __init__(self, content, name: str):
        self.content, self.name, self.at = content, name, 0

    def check(self, condition: bool, problem: str) -> None:
        if not condition:
            raise UserError(f"{self.name} is damaged: {problem}")

    def take(self, count: int) -> bytes:
        taken = bytes(self.content[self.at : self.at + count])
        self.check(len(taken) == count, "it ends inside its head")
        self.at += count
        return taken

    def varint(self) -> int:
        value = 0
        for shift in range(0, 63, 7):
            (byte,) = self.take(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise UserError(f"{self.name} is damaged: a number in its head is too long")


def parse(content, size: int, name: str) -> Head:
    """Reads and checks the head of a file.

    Args:
      content: a buffer that starts with the head (bytes or a memory map).
      size: bytes of the whole file.
      name: what to call it in errors.

    Raises:
      UserError: it is foreign, of a later version, damaged or cut off.
    """
    if bytes(content[: len(MAGIC)]) != MAGIC:
        if bytes(content[:3]) == MAGIC[:3]:
            raise UserError(
                f"{name} has format version {bytes(content[3:4])!r}; this program "
                "reads version b'1'"
            )
        raise UserError(f"{name} is no compressed image file: it lacks {MAGIC!r}")
    cursor = _Cursor(content, name)
    cursor.take(len(MAGIC))
    head = _read_sizes(cursor)
    count = math.ceil(head.images / head.block_images)
    cursor.check(5 * count + cursor.at + 4 <= size, "its index cannot fit in it")
    entries = []
    for _ in range(count):
        word = cursor.varint()
        cursor.check(word & 3 <= CODED, "a block is of an unknown kind")
        entries.append((word & 3, word >> 2, int.from_bytes(cursor.take(4), "little")))
    computed = zlib.crc32(content[: cursor.at])
    stored = int.from_bytes(cursor.take(4), "little")
    cursor.check(computed == stored, "the checksum of its head does not match")
    index = _place_blocks(head, entries, cursor)
    end = cursor.at + head.model_length + sum(block.length for block in index)
    cursor.check(end == size, f"it should have {end} bytes and has {size}")
    return dataclasses.replace(head, blocks=index)


def _read_sizes(cursor: _Cursor) -> Head:
    """Everything before the index."""
    (first,) = cursor.take(1)
    mode = first & ~(TRAILING_AXIS | EMBEDDED)
    check = cursor.check
    check(mode < len(MODES), f"mode {mode} is unknown")
    digest = cursor.take(4)
    images, height, width, block_images = (cursor.varint() for _ in range(4))
    parameter = cursor.varint() if mode != LOSSLESS else 0
    model_length = cursor.varint() if first & EMBEDDED else 0
    check(0 < height <= MOST_SIDE and 0 < width <= MOST_SIDE, "impossible image size")
    check(mode != NEAR_LOSSLESS or 0 < parameter < 128, "impossible error bound")
    check(mode != LATENT or 0 < parameter <= 8, "impossible bits of a latent")
    check(bool(model_length) == bool(first & EMBEDDED), "an embedded model is empty")
    check(
        0 < block_images and block_images * height * width <= MOST_BLOCK_PIXELS
        if height * width <= MOST_BLOCK_PIXELS
        else block_images == 1,
        "impossible images a block",
    )
    return Head(
        mode,
        digest,
        images,
        height,
        width,
        block_images,
        parameter,
        bool(first & TRAILING_AXIS),
        model_length,
    )


def _place_blocks(
    head: Head, entries: list[tuple[int, int, int]], cursor: _Cursor
) -> tuple[Block, ...]:
    """The index: checked entries (kind, length, checksum), and where they are."""
    pixels = head.height * head.width
    blocks, offset = [], cursor.at + head.model_length
    for index, (kind, length, checksum) in enumerate(entries):
        start = index * head.block_images
        held = min(head.block_images, head.images - start)
        if head.mode != LATENT:
            cursor.check(
                kind != RAW or length == held * pixels,
                "a raw block is of the wrong length",
            )
            cursor.check(
                kind != CODED or pixels <= MOST_CODED_PIXELS,
                "its images are too large to code",
            )
        cursor.check(fits(length, held * pixels), "a block is too short for its images")
        blocks.append(Block(kind, length, checksum, held, start, offset))
        offset += length
    return tuple(blocks)
