"""`codec decompress`, `info`, `verify` and `join`."""

import argparse
import os

import numpy as np

from emnist_jax.cli import console
from emnist_jax.cli.errors import UserError
from emnist_jax.codec import container, folder, inputs, mapping
from emnist_jax.codec.commands import outputs
from emnist_jax.codec.indexing import ImageArray
from emnist_jax.codec.joining import join as join_files


def autoencoder(path: str | None):
    """The trained run in a folder, or None."""
    if path is None:
        return None
    import emnist_jax  # the autoencoder's code is large

    return emnist_jax.load_run(path, flag="--run")


def _open(arguments: argparse.Namespace) -> ImageArray:
    file, run = outputs.stdin(arguments.file), autoencoder(arguments.run)
    return folder.open_path(file, model=arguments.model, run=run)


def rate(images: int, pixels: int, size: int) -> str:
    """Number of images, bytes and bits per pixel."""
    rate = f", {8 * size / pixels:.4f} bits per pixel" if pixels else ""
    return f"{images} images, {size} bytes{rate}"


def decompress(arguments: argparse.Namespace) -> None:
    """Decompresses a file, an image or a range of images."""
    out = arguments.out
    outputs.check_ending(out, ".npy", ".npz", ".zip")
    if not outputs.is_folder(out):
        out = outputs.check_output(out, arguments.file, arguments.model)
    with _open(arguments) as opened:
        start, stop = _chosen(arguments, len(opened))
        with console.bar(stop - start, "decompressing", "images") as bar:
            outputs.write(out, opened, start, stop, bar.update)
        kept = opened.labels is not None or opened.names is not None
    line = f"{arguments.out}: {stop - start} images"
    if kept and (out == outputs.STDOUT or not outputs.holds_more(out)):
        line += "; its labels and names go into .npz, .zip or a folder (FOLDER/)"
    outputs.say(out, line)


def _chosen(arguments, images: int) -> tuple[int, int]:
    if arguments.index is not None and arguments.range is not None:
        raise UserError(
            f"--index={arguments.index} --range={arguments.range}: give one of them"
        )
    if arguments.index is not None:
        if not 0 <= arguments.index < images:
            raise UserError(
                f"--index={arguments.index} is out of range: the file holds images 0 "
                f"to {images - 1}"
            )
        return arguments.index, arguments.index + 1
    if arguments.range is None:
        return 0, images
    first, colon, last = arguments.range.partition(":")
    try:
        start, stop = int(first or 0), int(last or images)
    except ValueError:
        colon = ""
    if not colon or not 0 <= start <= stop <= images:
        raise UserError(f"--range={arguments.range} is not FIRST:END within 0:{images}")
    return start, stop


def info(arguments: argparse.Namespace) -> None:
    """Prints what a file holds; only its head is read."""
    head, size = mapping.read_head(outputs.stdin(arguments.file))
    kinds = [block.kind for block in head.blocks]
    named = ("raw", "deflated", "coded", "bzip2")
    numbers = [f"{kinds.count(kind)} {named[kind]}" for kind in (2, 1, 3, 0)]
    print(f"mode            {container.MODES[head.mode]}")
    if head.mode != container.LOSSLESS:
        name = ("", "max_error", "bits", "spans cut for")[head.mode]
        print(f"{name:15} {head.parameter}")
    print(f"images          {head.images} of {head.height}x{head.width}")
    print(f"model           {head.digest.hex()}, {head.model_length} bytes embedded")
    print(
        f"blocks          {len(kinds)} of at most {head.block_images} images: "
        f"{', '.join(numbers)}"
    )
    if head.features & container.INVERTED:
        print("inverted        yes; decoding turns them back")
    for feature, name in ((container.LABELLED, "labels"), (container.NAMED, "names")):
        if head.features & feature:
            print(f"{name:15} kept")
    pixels = head.images * head.height * head.width
    print(f"size            {rate(head.images, pixels, size)}")


def verify(arguments: argparse.Namespace) -> None:
    """Decodes everything, checks checksums and compares with images if given."""
    with _open(arguments) as opened:
        images = None
        if arguments.images is not None:
            images = inputs.images_of(arguments).images
            if images.shape != opened.shape:
                raise UserError(
                    f"{arguments.file} holds {opened.shape}, {arguments.images} "
                    f"{images.shape}"
                )
        worst, squares, first = 0, 0, 0
        with console.bar(len(opened), "verifying", "images") as bar:
            for piece in opened.pieces(report=bar.update):
                if images is not None:
                    part = images[first : first + len(piece)].astype(np.int32)
                    error = np.abs(part - piece)
                    worst = max(worst, int(error.max(initial=0)))
                    squares += int((error**2).sum(dtype=np.int64))
                first += len(piece)
        _ = opened.names  # checked as well
        mode, bound = opened.promise
    bounded = mode in (container.LOSSLESS, container.NEAR_LOSSLESS)
    if images is not None and worst > bound and bounded:
        raise UserError(
            f"{arguments.file} is not {arguments.images}: pixels differ by up to "
            f"{worst}, {bound} expected"
        )
    given = arguments.images if images is not None else None
    mean = squares / max(1, images.size) / 255**2 if images is not None else 0.0
    held = _held((mode, bound), given, worst, mean)
    print(f"{arguments.file}: all checksums match; {held}")


def _held(promise: tuple, given: str | None, worst: int, mean: float) -> str:
    """What a file promises about pixels, and what of it holds for images given."""
    mode, bound = promise
    if mode == container.LOSSLESS:
        return f"every pixel is that of {given}" if given else "promised: every pixel"
    if mode == container.NEAR_LOSSLESS:
        held = f"; held: none of {given} is off by more than {worst}" if given else ""
        return f"promised: no pixel off by more than {bound}{held}"
    held = (
        f"; their mean squared error against {given} is {mean:.5f} (of white 1)"
        if given
        else ""
    )
    what = "the latents, nothing" if mode == container.LATENT else "nothing"
    return f"promised: {what} about pixels{held}"


def join(arguments: argparse.Namespace) -> None:
    """Joins files of the same model, bound and size of images, without decoding."""
    *sources, out = arguments.files
    if not sources:
        raise UserError(f"{out}: give the files to join, then the file to write")
    outputs.check_ending(out, ".ejx")
    head = join_files(out, *sources)
    pixels = head.images * head.height * head.width
    print(f"{out}: {rate(head.images, pixels, os.path.getsize(out))}")
