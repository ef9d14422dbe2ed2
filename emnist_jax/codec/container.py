"""The head of a compressed file: what it holds and where its blocks are.

docs/codec_format.md describes every byte.
"""

import dataclasses
import math
import zlib

from emnist_jax.cli.errors import UserError

MAGICS = (b"EJX1", b"EJX2")  # of each version; the first that can hold a file is used
LOSSLESS, NEAR_LOSSLESS, LATENT, LOSSY = range(4)  # the last from version 2 on
MODES = ("lossless", "near-lossless", "latent", "lossy")
TRAILING_AXIS, EMBEDDED = 0x40, 0x80  # flags in the byte of the mode
INVERTED, COUNTED, LABELLED, NAMED, TURNED = 1, 2, 4, 8, 16  # from version 2 on
RAW, DEFLATED, CODED, BZIPPED = range(4)  # kinds of blocks; the last from version 2 on
MOST_SIDE = 1 << 16  # pixels of a side
MOST_BLOCK_PIXELS = 1 << 22
MOST_CODED_PIXELS = 1 << 14  # of an image; the time a block takes grows with it
PIXELS_A_BYTE = 4096  # no block claims more


@dataclasses.dataclass(frozen=True)
class Block:
    """An entry of the index.

    Attributes:
      kind: `RAW`, `DEFLATED`, `CODED` or `BZIPPED`.
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
      mode: `LOSSLESS`, `NEAR_LOSSLESS`, `LATENT` or `LOSSY`.
      digest: 4 bytes that name the model.
      images: number of images.
      height: of each, in pixels.
      width: of each, in pixels.
      block_images: images in every block but the last; with `COUNTED` the most.
      parameter: largest error of a pixel if near-lossless, how its spans are cut if
        lossy, bits of a latent if latent, else 0.
      trailing_axis: whether the images came as [N, height, width, 1].
      model_length: bytes of the embedded model, 0 without.
      features: any of `INVERTED`, `COUNTED`, `LABELLED`, `NAMED` and `TURNED`.
      notes_length: bytes of the labels and names, 0 without.
      blocks: the index.
      end: where the head ends, and the embedded model and then the notes begin.
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
    features: int = 0
    notes_length: int = 0
    blocks: tuple[Block, ...] = ()
    end: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the decoded array."""
        shape = (self.images, self.height, self.width)
        return (*shape, 1) if self.trailing_axis else shape


def fits(length: int, pixels: int) -> bool:
    """Whether a block of `length` bytes may claim so many pixels of images."""
    return pixels <= PIXELS_A_BYTE * length


def images_per_block(images: int, pixels: int, most: int) -> int:
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


def pack(
    head: Head, entries: list[tuple[int, int, int]], counts: list[int] | None = None
) -> bytes:
    """Writes a head, in version 1 where that can hold it.

    Args:
      head: without blocks.
      entries: kind, length and checksum of each block.
      counts: images of each block, for a head that is `COUNTED`.
    """
    later = head.features or head.mode == LOSSY
    later = later or any(kind == BZIPPED for kind, _, _ in entries)
    flags = TRAILING_AXIS * head.trailing_axis | EMBEDDED * bool(head.model_length)
    out = bytearray(MAGICS[bool(later)])
    out.append(head.mode | flags)
    if later:
        out.append(head.features)
    out += head.digest
    numbers = [head.images, head.height, head.width, head.block_images]
    if head.mode != LOSSLESS:
        numbers.append(head.parameter)
    if head.model_length:
        numbers.append(head.model_length)
    if head.features & (LABELLED | NAMED):
        numbers.append(head.notes_length)
    if head.features & COUNTED:
        numbers.append(len(entries))
    for number in numbers:
        out += write_varint(number)
    for index, (kind, length, checksum) in enumerate(entries):
        if head.features & COUNTED:
            out += write_varint(counts[index])
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
    magic = bytes(content[: len(MAGICS[0])])
    if magic not in MAGICS:
        if magic[:3] == MAGICS[0][:3]:
            raise UserError(
                f"{name} has format version {magic[3:]!r}; this program reads "
                "versions b'1' and b'2'"
            )
        raise UserError(f"{name} is no compressed image file: it lacks {MAGICS[0]!r}")
    cursor = _Cursor(content, name)
    cursor.take(len(magic))
    head, count = _read_sizes(cursor, later=magic != MAGICS[0])
    cursor.check(5 * count + cursor.at + 4 <= size, "its index cannot fit in it")
    counted, last = head.features & COUNTED, BZIPPED if magic != MAGICS[0] else CODED
    entries, held = [], []
    for index in range(count):
        rest = head.images - index * head.block_images
        held.append(cursor.varint() if counted else min(head.block_images, rest))
        word = cursor.varint()
        cursor.check(word & 3 <= last, "a block is of an unknown kind")
        entries.append((word & 3, word >> 2, int.from_bytes(cursor.take(4), "little")))
    computed = zlib.crc32(content[: cursor.at])
    stored = int.from_bytes(cursor.take(4), "little")
    cursor.check(computed == stored, "the checksum of its head does not match")
    cursor.check(
        sum(held) == head.images
        and all(0 < images <= head.block_images for images in held),
        "its blocks hold impossible numbers of images",
    )
    head = dataclasses.replace(head, end=cursor.at)
    index = _place_blocks(head, entries, held, cursor)
    end = head.end + head.model_length + head.notes_length
    end += sum(block.length for block in index)
    cursor.check(end == size, f"it should have {end} bytes and has {size}")
    return dataclasses.replace(head, blocks=index)


def _read_sizes(cursor: _Cursor, later: bool) -> tuple[Head, int]:
    """Everything before the index, and the number of blocks."""
    (first,) = cursor.take(1)
    mode = first & ~(TRAILING_AXIS | EMBEDDED)
    check = cursor.check
    check(mode < len(MODES) - (not later), f"mode {mode} is unknown")
    (features,) = cursor.take(1) if later else (0,)
    check(features < 2 * TURNED, "it has a feature that this program does not know")
    check(mode == LATENT or not features & TURNED, "its pixels have a basis")
    digest = cursor.take(4)
    images, height, width, block_images = (cursor.varint() for _ in range(4))
    parameter = cursor.varint() if mode != LOSSLESS else 0
    model_length = cursor.varint() if first & EMBEDDED else 0
    notes = bool(features & (LABELLED | NAMED))
    notes_length = cursor.varint() if notes else 0
    check(0 < height <= MOST_SIDE and 0 < width <= MOST_SIDE, "impossible image size")
    bounded = mode in (NEAR_LOSSLESS, LOSSY)
    check(not bounded or 0 < parameter < 128, "impossible error bound")
    check(mode != LATENT or 0 < parameter <= 8, "impossible bits of a latent")
    check(bool(model_length) == bool(first & EMBEDDED), "an embedded model is empty")
    check(bool(notes_length) == notes, "its labels or names are empty")
    check(
        0 < block_images and block_images * height * width <= MOST_BLOCK_PIXELS
        if height * width <= MOST_BLOCK_PIXELS
        else block_images == 1,
        "impossible images a block",
    )
    head = Head(
        mode=mode,
        digest=digest,
        images=images,
        height=height,
        width=width,
        block_images=block_images,
        parameter=parameter,
        trailing_axis=bool(first & TRAILING_AXIS),
        model_length=model_length,
        features=features,
        notes_length=notes_length,
    )
    counted = features & COUNTED
    return head, cursor.varint() if counted else math.ceil(images / block_images)


def _place_blocks(
    head: Head, entries: list[tuple[int, int, int]], counts: list[int], cursor: _Cursor
) -> tuple[Block, ...]:
    """The index: checked entries (kind, length, checksum), and where they are."""
    pixels = head.height * head.width
    blocks, start = [], 0
    offset = head.end + head.model_length + head.notes_length
    for (kind, length, checksum), held in zip(entries, counts, strict=True):
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
        start += held
    return tuple(blocks)
