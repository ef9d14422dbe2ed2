"""NIST's EMNIST archive: a zip of gzipped IDX files, read with bounded memory."""

import dataclasses
import hashlib
import os
import string
import struct
import zipfile
import zlib

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.storage import files

# NIST's gzip.zip, 561,753,746 bytes.
NIST_URL = "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip"
NIST_SHA256 = "fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e"

_UPPER = tuple(string.digits + string.ascii_uppercase)
_MERGED = (*_UPPER, *"abdefghnqrt")  # the lower-case letters unlike their capitals


@dataclasses.dataclass(frozen=True)
class Variant:
    """One of the ways in which NIST cuts EMNIST.

    Attributes:
      title: the name in NIST's words.
      class_names: what each label means, `class_names[label]`.
      first_label: the lowest label that occurs.
    """

    title: str
    class_names: tuple[str, ...]
    first_label: int = 0


VARIANTS = {
    "balanced": Variant("EMNIST-Balanced", _MERGED),
    # NIST's labels of Letters, upper and lower case in one, are 1 to 26.
    "letters": Variant("EMNIST-Letters", ("", *string.ascii_uppercase), 1),
    "digits": Variant("EMNIST-Digits", tuple(string.digits)),
    "mnist": Variant("EMNIST-MNIST", tuple(string.digits)),
    "byclass": Variant("EMNIST-ByClass", (*_UPPER, *string.ascii_lowercase)),
    "bymerge": Variant("EMNIST-ByMerge", _MERGED),
}

_MOST_IMAGES = 814_255  # all of EMNIST, ByClass with train and test together
MOST_BYTES = int(_MOST_IMAGES * 28 * 28 * 1.01)  # of its images, labels and headers
# RuntimeError: encrypted, or a compression that zipfile does not know; ValueError and
# struct.error: names and offsets that make no sense.
_UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, struct.error, zlib.error)


def sha256(path: str | os.PathLike) -> str:
    """Returns the SHA-256 of a file, in hexadecimal.

    Raises:
      UserError: the file cannot be read.
    """
    try:
        with files.open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"--emnist_archive={path} cannot be read: {error.strerror or error}"
        ) from error


def read_split(
    path: str | os.PathLike, variant: str, part: str
) -> tuple[np.ndarray, np.ndarray]:
    """Reads one split, turned upright (NIST's files hold every image transposed).

    Whatever the file claims, no more is unpacked than all of EMNIST can hold.

    Args:
      path: the archive.
      variant: a key of `VARIANTS`.
      part: `train` or `test`.

    Returns:
      (uint8 [N, 28, 28, 1] images, int32 [N] labels), in the file's order.

    Raises:
      UserError: the archive is damaged, is not EMNIST's, or contradicts itself.
    """
    stem = f"gzip/emnist-{variant}-{part}"
    try:
        with zipfile.ZipFile(path) as archive:
            images = _read_idx(archive, f"{stem}-images-idx3-ubyte.gz", (28, 28))
            labels = _read_idx(archive, f"{stem}-labels-idx1-ubyte.gz", ())
        check_split(images, labels, variant, part)
    except _Contradiction as error:
        raise UserError(
            f"--emnist_archive={path} is not usable: {error}; NIST's is {NIST_URL}"
        ) from error
    except (zipfile.BadZipFile, *_UNREADABLE) as error:
        raise UserError(
            f"--emnist_archive={path} is cut short, damaged or no zip archive "
            f"({error}); NIST's is {NIST_URL}"
        ) from error
    upright = np.ascontiguousarray(images.transpose(0, 2, 1))[..., np.newaxis]
    return upright, labels.astype(np.int32)


def check_split(
    images: np.ndarray, labels: np.ndarray, variant: str, part: str
) -> None:
    """Raises an error that says so if these cannot be a split of a variant."""
    stem = f"gzip/emnist-{variant}-{part}"
    if images.dtype != np.uint8 or images.shape[1:] != (28, 28):
        raise _Contradiction(f"{stem} has {images.dtype} images {images.shape}")
    if len(images) != len(labels):
        raise _Contradiction(
            f"{stem} has {len(images)} images and {len(labels)} labels, "
            "which must be as many"
        )
    lowest = VARIANTS[variant].first_label
    highest = len(VARIANTS[variant].class_names) - 1
    if labels.min() < lowest or labels.max() > highest:
        raise _Contradiction(
            f"{stem} has labels {labels.min()} to {labels.max()}, "
            f"which must lie within {lowest} to {highest}"
        )


class _Contradiction(Exception):
    """The archive can be read and is not what it should be."""


def _read_idx(
    archive: zipfile.ZipFile, member: str, item_shape: tuple[int, ...]
) -> np.ndarray:
    """Reads a gzipped IDX file of bytes: uint8 [N, *item_shape]."""
    try:
        info = archive.getinfo(member)
    except KeyError:
        raise _Contradiction(f"it has no member {member}") from None
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _Contradiction(f"{member} is packed by method {info.compress_type}")
    if info.file_size > MOST_BYTES:
        raise _Contradiction(
            f"{member} has {info.file_size} bytes, more than all of EMNIST"
        )
    with archive.open(member) as file:  # never gives more than file_size
        packed = file.read()
    unpacker = zlib.decompressobj(wbits=31)  # gzip, with its checksum
    header_size = 8 + 4 * len(item_shape)
    header = unpacker.decompress(packed, header_size)
    if len(header) < header_size:
        raise _Contradiction(f"{member} is cut short within its header")
    magic, count, *shape = np.frombuffer(header, ">u4").tolist()
    expected_magic = 0x0801 + len(item_shape)
    if magic != expected_magic or tuple(shape) != item_shape:
        raise _Contradiction(
            f"the header of {member} says type {magic:#x} and items of {shape}, "
            f"not {expected_magic:#x} and {list(item_shape)}"
        )
    if not 1 <= count <= _MOST_IMAGES:
        raise _Contradiction(
            f"the header of {member} says {count} items, not 1 to {_MOST_IMAGES}"
        )
    size = count * int(np.prod(item_shape))
    content = unpacker.decompress(unpacker.unconsumed_tail, size + 1)
    if len(content) < size:
        raise _Contradiction(
            f"the header of {member} says {count} items, {size} bytes, "
            f"and {len(content)} bytes follow"
        )
    if len(content) > size or not unpacker.eof or unpacker.unused_data.strip(b"\0"):
        raise _Contradiction(
            f"{member} holds more than the {count} items that its header says, "
            "or is cut short at its end"
        )
    return np.frombuffer(content, np.uint8).reshape(count, *item_shape)
