"""Labels and names that a compressed file keeps beside its images."""

import zlib
from collections.abc import Sequence

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.codec import container
from emnist_jax.storage.arrays import DEFLATE_RATIO

WIDTHS = (1, 2, 4, 8)  # bytes of a label
LONGEST_PART, LONGEST_NAME = 255, 1024  # bytes
_CONTROLS = {*range(32), *range(127, 160), 0x2028, 0x2029, *range(0x202A, 0x202F)}
_CONTROLS |= {*range(0x2066, 0x206A)}  # marks that make text run the other way


def pack(images: int, labels, names: Sequence[str] | None) -> tuple[int, bytes]:
    """Features of a head for labels and names, and their bytes (none for neither).

    Args:
      images: how many there are.
      labels: whole numbers [images], or None.
      names: relative paths of files, all different, or None.

    Raises:
      UserError: they are of another length, or no such labels and names.
    """
    features, content = 0, b""
    if labels is not None:
        labels = np.asarray(labels)
        if labels.shape != (images,) or labels.dtype.kind not in "iub":
            raise UserError(
                f"labels of shape {labels.shape} and type {labels.dtype}: give "
                f"{images} whole numbers"
            )
        if labels.dtype.kind == "u" and labels.max(initial=0) >= 1 << 63:
            raise UserError("labels must be less than 2**63")
        labels = labels.astype(np.int64)
        width = next(w for w in WIDTHS if (labels == labels.astype(f"i{w}")).all())
        content += bytes([width]) + labels.astype(f"<i{width}").tobytes()
        features |= container.LABELLED
    if names is not None:
        names = [str(name) for name in names]
        if len(names) != images:
            raise UserError(f"{len(names)} names: give {images}, one an image")
        check_names(names, "names")
        for name in map(str.encode, names):
            content += container.write_varint(len(name)) + name
        features |= container.NAMED
    return features, zlib.compress(content, 9) if features else b""


def unpack(
    packed: bytes, head: container.Head, name: str
) -> tuple[np.ndarray | None, list[str] | None]:
    """Reads what `pack` made: labels int64 [N] or None, and names or None.

    Raises:
      UserError: `packed` is damaged, or holds names that are no safe relative paths.
    """
    labelled = bool(head.features & container.LABELLED)
    named = bool(head.features & container.NAMED)
    labels, names = None, None
    most = labelled * (1 + 8 * head.images) + named * (2 + LONGEST_NAME) * head.images
    least = (labelled + named) * head.images
    try:
        if least > DEFLATE_RATIO * len(packed):
            raise ValueError("too short for its images")
        inflate = zlib.decompressobj()
        content = inflate.decompress(packed, most + 1)
        if not inflate.eof or inflate.unused_data:
            raise ValueError("of a wrong length")
        if labelled:
            width, size = content[0], content[0] * head.images
            if width not in WIDTHS or len(content) < 1 + size:
                raise ValueError("no labels")
            labels = np.frombuffer(content, f"<i{width}", head.images, 1)
            labels, content = labels.astype(np.int64), content[1 + size :]
        if named:
            names, content = _read_names(content, head.images)
        if content:
            raise ValueError("too long")
    except (ValueError, IndexError, zlib.error) as error:
        raise UserError(
            f"{name} is damaged: its labels and names are {error}"
        ) from error
    if names is not None:
        check_names(names, name)
    return labels, names


def _read_names(content: bytes, count: int) -> tuple[list[str], bytes]:
    names, at = [], 0
    for _ in range(count):
        length, at = content[at], at + 1
        if length >= 0x80:
            length, at = length & 0x7F | content[at] << 7, at + 1
        if length > LONGEST_NAME or at + length > len(content):
            raise ValueError("of a wrong length")
        names.append(content[at : at + length].decode())
        at += length
    return names, content[at:]


def check_names(names: Sequence[str], source: str) -> None:
    """Raises `UserError` unless all can be files of one folder at once.

    Args:
      names: `/` between their parts.
      source: what holds them, for errors.
    """
    folders = set()
    for name in names:
        parts = name.split("/")
        problem = (
            "is no relative path"
            if {"", ".", ".."} & set(parts) or "\\" in name
            else "holds a control character"
            if _CONTROLS & set(map(ord, name))
            else "is too long"
            if max(len(part.encode()) for part in parts) > LONGEST_PART
            or len(name.encode()) > LONGEST_NAME
            else None
        )
        if problem:
            raise UserError(f"{source}: the name {name[:80]!r} {problem}")
        folders |= {"/".join(parts[:end]) for end in range(1, len(parts))}
    seen = set()
    for name in names:
        if name in seen or name in folders:
            raise UserError(f"{source}: the name {name[:80]!r} is there twice")
        seen.add(name)
