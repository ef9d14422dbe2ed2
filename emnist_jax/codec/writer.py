"""Compressing arrays of images."""

import bz2
import functools
import io
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence

import numpy as np

from emnist_jax.cli.errors import UserError
from emnist_jax.codec import (
    blocks,
    container,
    latent_coding,
    latent_fit,
    lossy,
    model_file,
    notes,
)
from emnist_jax.codec.blocks import Report, WholeImages, coded_together, silent
from emnist_jax.codec.container import Head
from emnist_jax.codec.options import Options
from emnist_jax.storage import files, paths


def plain_images(images: np.ndarray, name: str = "images") -> np.ndarray:
    """Checks what is to be compressed.

    Args:
      images: array-like, uint8 [N, height, width] or [N, height, width, 1]; may be a
        memory map.
      name: what to call it in errors.

    Returns:
      uint8 [N, height, width].

    Raises:
      UserError: another type or shape, or a side of 0 or over 65536 pixels.
    """
    try:
        images = np.asanyarray(images)  # a memory map stays one
    except (ValueError, TypeError) as error:
        raise UserError(f"{name}: is no array of images: {error}") from error
    if images.dtype != np.uint8:
        raise UserError(f"{name} has type {images.dtype}; give uint8, 0 to 255")
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim != 3:
        raise UserError(
            f"{name} has shape {images.shape}; give [N, height, width] or "
            "[N, height, width, 1]"
        )
    if not all(0 < side <= container.MOST_SIDE for side in images.shape[1:]):
        raise UserError(
            f"{name} has shape {images.shape}; sides must be 1 to "
            f"{container.MOST_SIDE} pixels"
        )
    return images


# Against blocks of 1024, bytes of 4,096 test images with `default` are 9.3% more with 1
# image a block, 2.2 with 4, 1.0 with 8, 0.4 with 16, 0.2 with 32, 0.1 with 64.
BLOCK_PIXELS = 16 * 784
LARGE_BLOCK = 1024
LATENT_BLOCK = 4096  # whose lanes cost 0.06 bytes an image, where 1024 cost 0.25
SAMPLE = 64  # images from which it is seen whether the pixel model pays


def _find_coder(chosen: Options, images: np.ndarray, name: str) -> tuple:
    """The coder, what makes its blocks of images, a digest and what is embedded."""
    turned = np.invert if chosen.invert > chosen.inverted else np.asarray  # 255 - x
    if chosen.mode == "latent":
        targets = chosen.bits, chosen.mse, chosen.bytes_per_image
        coder, tables = latent_fit.fit(
            chosen.run, turned(images), name, *targets, chosen.refine
        )
        digest = model_file.digest(tables)
        return coder, lambda part: coder.symbols(turned(part)), digest, tables

    @functools.cache
    def load(error: int) -> tuple:
        name = model_file.name_for(error) if chosen.model is None else chosen.model
        return model_file.load(name)

    if chosen.mode == "lossy":
        targets = chosen.mse, chosen.bytes_per_image
        coder = lossy.fit(lambda error: load(error)[0], images, turned, *targets)
    else:
        model = load(chosen.max_error)[0]
        coder = blocks.PixelCoder(model, images.shape[1:], chosen.max_error)
    _, digest, content = load(coder.max_error)
    embedded = content if chosen.embed_model else b""
    return coder, lambda part: turned(np.ascontiguousarray(part)), digest, embedded


def _most_images(coder, images: np.ndarray, prepare: Callable) -> int:
    """Images a block for a coder that finds single ones fast, and else for bzip2."""
    if isinstance(coder, latent_coding.LatentCoder):
        return LATENT_BLOCK
    pixels = math.prod(images.shape[1:])
    few = max(1, BLOCK_PIXELS // pixels)
    if coder.shape != images.shape[1:] or pixels > container.MOST_CODED_PIXELS:
        return LARGE_BLOCK
    if len(images) <= few:
        return few
    sample = prepare(images[:: -(-len(images) // SAMPLE)])
    (stream,), decoded = coder.encode([sample], lambda share: None)
    plain = bz2.compress(np.ascontiguousarray(coder.plain(sample, decoded)))
    return few if len(stream) <= len(plain) else LARGE_BLOCK


def write(
    file: io.IOBase,
    images: np.ndarray,
    *,
    labels=None,
    names: Sequence[str] | None = None,
    name: str = "images",
    report: Report = silent,
    **options,
) -> Head:
    """Compresses images into an open binary file, a batch of blocks at a time.

    Args:
      file: where to; its content goes from here to its end.
      images: uint8 [N, height, width] or [N, height, width, 1]; may be a memory map.
      labels: whole numbers [N] to keep with the images.
      names: of the images, all different: relative paths of files, to keep with them.
      name: what to call the images in errors.
      report: called with numbers of images done.
      **options: those of `options.Options`.

    Returns:
      The head.

    Raises:
      UserError: an argument is wrong.
    """
    chosen = Options(**options).checked()
    plain = plain_images(images, name)
    count, height, width = plain.shape
    features, kept = notes.pack(count, labels, names)
    coder, prepare, digest, embedded = _find_coder(chosen, plain, name)
    latent = chosen.mode == "latent"
    features |= container.INVERTED * bool(chosen.invert) | container.TURNED * latent
    most = chosen.block_images or _most_images(coder, plain, prepare)
    held = container.images_per_block(count, height * width, most)
    head = Head(
        mode=container.MODES.index(chosen.mode),
        digest=digest,
        images=count,
        height=height,
        width=width,
        block_images=held,
        parameter=coder.bits if latent else coder.max_error,
        trailing_axis=np.ndim(images) == 4,
        model_length=len(embedded),
        features=features,
        notes_length=len(kept),
    )
    with _payloads(file) as payloads:
        entries = _write_blocks(payloads, head, (coder, prepare), plain, report)
        start = container.pack(head, entries) + embedded + kept
        # Blocks have been read back by `store`, what stands before them is here.
        written = container.parse(start, len(start) + payloads.tell(), "the result")
        if latent:
            latent_coding.restore(chosen.run, embedded, written, "the result")
        file.write(start)
        payloads.seek(0)
        shutil.copyfileobj(payloads, file)
    return written


def _write_blocks(
    file: io.IOBase, head: Head, coding: tuple, images: np.ndarray, report: Report
) -> list[tuple[int, int, int]]:
    """Writes the blocks of a head; kind, length and checksum of each."""
    (coder, prepare), held, entries = coding, head.block_images, []
    for numbers in coded_together(head, -(-head.images // held)):
        parts = [prepare(images[at * held : (at + 1) * held]) for at in numbers]
        told = WholeImages(sum(map(len, parts)), report)
        stored = blocks.store(coder, parts, head.height * head.width, told.add)
        for kind, payload, checksum in stored:
            entries.append((kind, len(payload), checksum))
            file.write(payload)
        told.end()
    return entries


def _payloads(file: io.IOBase) -> io.IOBase:
    """A file for a while where `file` is: TMPDIR may be a small disk in memory."""
    if isinstance(file, io.BytesIO):
        return io.BytesIO()
    name = getattr(file, "name", None)
    beside = isinstance(name, str) and os.path.isfile(name)
    folder = os.path.dirname(os.path.abspath(name)) if beside else tempfile.gettempdir()
    try:
        return tempfile.TemporaryFile(dir=folder)
    except OSError as error:
        raise UserError(f"cannot write into {folder}: {error.strerror}") from error


def compress(images: np.ndarray, **options) -> bytes:
    """Compresses images.

    Args:
      images: uint8 [N, height, width] or [N, height, width, 1].
      **options: those of `options.Options`, and those of `write`.

    Returns:
      The content of a compressed file.

    Raises:
      UserError: an argument is wrong.
    """
    file = io.BytesIO()
    write(file, images, **options)
    return file.getvalue()


def compress_file(path: str | os.PathLike, images: np.ndarray, **options) -> Head:
    """Compresses images into the file `path`; options as for `write`.

    Raises:
      UserError: as `write` and `paths.check_output`.
    """
    out = paths.check_output(path, getattr(images, "filename", None))
    with files.write_atomically(out) as temporary, open(temporary, "wb") as file:
        return write(file, images, **options)
