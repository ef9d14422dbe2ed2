"""Joining compressed files without decoding them."""

import contextlib
import dataclasses
import mmap
import os

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.codec import container, mapping, notes
from emnist_jax.codec.container import Head
from emnist_jax.storage import files, paths

PIECE = 1 << 24  # bytes copied at once


def _alike(head: Head) -> dict[str, object]:
    """What files must have in common."""
    axis = "[N, H, W, 1]" if head.trailing_axis else "[N, H, W]"
    return {
        "mode": container.MODES[head.mode],
        "max_error or bits": head.parameter,
        "size of images": f"{head.height}x{head.width}",
        "shape": axis,
        "model": head.digest.hex(),
        "inversion": bool(head.features & container.INVERTED),
    }


def _notes_of(contents: list, heads: list[Head], names: list[str]) -> tuple[int, bytes]:
    """Labels and names of all files, each where all have them."""
    found = []
    for content, head, name in zip(contents, heads, names, strict=True):
        start = head.end + head.model_length
        packed = bytes(content[start : start + head.notes_length])
        found.append(notes.unpack(packed, head, name) if packed else (None, None))
    labels, kept = zip(*found, strict=True)
    return notes.pack(
        sum(head.images for head in heads),
        None if any(part is None for part in labels) else np.concatenate(labels),
        None if any(part is None for part in kept) else sum(kept, []),
    )


def join(out: str | os.PathLike, *sources: str | os.PathLike) -> Head:
    """Writes the images of several files, one after the other, into one.

    Blocks are copied as they are. Labels and names go along where all files have them.

    Args:
      out: the file to write.
      *sources: compressed files of the same model, mode, bound and size of images.

    Returns:
      The head of the new file.

    Raises:
      UserError: a file cannot be read, is damaged or differs from the first, names
        are there twice, or `out` cannot be written.
    """
    if not sources:
        raise UserError("join: give at least one file")
    target = paths.check_output(out, *sources)
    names = list(map(str, sources))
    with contextlib.ExitStack() as stack:
        contents = [mapping.map_file(source) for source in sources]
        for content in contents:
            if isinstance(content, mmap.mmap):
                stack.callback(content.close)
        heads = [
            container.parse(content, len(content), name)
            for content, name in zip(contents, names, strict=True)
        ]
        wanted = _alike(heads[0])
        for head, name in zip(heads, names, strict=True):
            for what, value in _alike(head).items():
                if value != wanted[what]:
                    raise UserError(
                        f"{name} and {names[0]} cannot be joined: {what} {value} and "
                        f"{wanted[what]}"
                    )
        head, start = _joined(contents, heads, names)
        with files.write_atomically(target) as temporary, open(temporary, "wb") as file:
            file.write(start)
            for content, one in zip(contents, heads, strict=True):
                first = one.end + one.model_length + one.notes_length
                for at in range(first, len(content), PIECE):
                    file.write(content[at : at + PIECE])
    return head


def _joined(contents: list, heads: list[Head], names: list[str]) -> tuple[Head, bytes]:
    """The head of a joined file, and all that stands before its blocks."""
    model = b""
    for content, one in zip(contents, heads, strict=True):
        model = model or bytes(content[one.end : one.end + one.model_length])
    features, kept = _notes_of(contents, heads, names)
    blocks = [block for one in heads for block in one.blocks]
    counts = [block.images for block in blocks]
    most = max(counts, default=1)
    if any(count != most for count in counts[:-1]):
        features |= container.COUNTED
    features |= heads[0].features & (container.INVERTED | container.TURNED)
    head = dataclasses.replace(
        heads[0],
        images=sum(counts),
        block_images=most,
        model_length=len(model),
        features=features,
        notes_length=len(kept),
        blocks=(),
    )
    entries = [(block.kind, block.length, block.checksum) for block in blocks]
    start = container.pack(head, entries, counts) + model + kept
    size = len(start) + sum(block.length for block in blocks)
    return container.parse(start, size, "the result"), start
