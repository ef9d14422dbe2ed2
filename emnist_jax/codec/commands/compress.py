"""`codec compress`: its estimate, a model for the images at hand, and its advice."""

import argparse
import bz2
import contextlib
import dataclasses
import os
import pathlib
import sys
import tempfile
import time

import numpy as np

from emnist_jax.cli import console
from emnist_jax.cli.errors import UserError
from emnist_jax.codec import container, inputs, mapping, model_file, writer
from emnist_jax.codec.commands import outputs
from emnist_jax.codec.commands.read import autoencoder, rate
from emnist_jax.codec.folder import load_zarr
from emnist_jax.codec.options import Options

SAMPLE_PIXELS = 512 * 784  # compressed to estimate time and size
TRAINED_SHARE = 0.6  # what trained models take of bzip2's bytes, about
TRAIN_FROM = "fast"  # the shipped model that `--train` begins with


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What compressing images would take, from a sample of them.

    Attributes:
      images: in the sample.
      bits: of a pixel.
      bzip2: bits of a pixel that bzip2 takes.
      seconds: for all images.
    """

    images: int
    bits: float
    bzip2: float
    seconds: float


def estimate(images: np.ndarray, options: dict) -> Estimate:
    """Compresses evenly spread images twice; the first time compiles."""
    pixels = max(1, images[0].size) if len(images) else 1
    count = min(len(images), max(1, SAMPLE_PIXELS // pixels))
    if not count:
        return Estimate(0, 0.0, 0.0, 0.0)
    sample = np.asarray(images[np.linspace(0, len(images) - 1, count).astype(int)])
    for _ in range(2):
        started = time.monotonic()
        content = writer.compress(sample, **options)
        seconds = time.monotonic() - started
    head = container.parse(content, len(content), "the sample")
    payload = sum(block.length for block in head.blocks)
    bits = [8 * size / sample.size for size in (payload, len(bz2.compress(sample)))]
    return Estimate(count, *bits, seconds * len(images) / count)


def compress(arguments: argparse.Namespace) -> None:
    """Compresses images into a file or a zarr array."""
    out = arguments.out
    outputs.check_ending(out, ".ejx", ".zarr")
    array = outputs.is_array(out)
    if array and arguments.mode in ("latent", "lossy"):
        raise UserError(
            f"--mode={arguments.mode}: zarr arrays keep pixels within a bound; name a "
            "file (.ejx)"
        )
    if array:
        load_zarr(out)  # raises before any work if there is none
    check = outputs.check_array if array else outputs.check_output
    read = inputs.files_of(arguments.images)
    out = check(out, *read, arguments.emnist_archive, arguments.model)
    found = inputs.images_of(arguments)
    images = found.images
    options = {
        "mode": arguments.mode,
        "max_error": arguments.max_error,
        "mse": arguments.mse,
        "bytes_per_image": arguments.bytes,
        "model": arguments.model,
        "embed_model": arguments.embed_model,
        "run": autoencoder(arguments.run),
        "bits": arguments.bits,
        "refine": arguments.refine,
        "block_images": arguments.block_images,
        "invert": arguments.invert,
        "inverted": arguments.invert,  # the reader did
        "name": arguments.images,
    }
    if arguments.estimate:
        _say_estimate(estimate(images, options), images)
        return
    if arguments.keep:
        if found.labels is None and found.names is None:
            raise UserError(f"--keep: {arguments.images} has neither labels nor names")
        options |= {"labels": found.labels, "names": found.names}
    with contextlib.ExitStack() as stack:
        if arguments.train:  # a few megabytes, gone with it
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            options |= _train(arguments, images, options, folder)
        with console.bar(len(images), "compressing", "images") as bar:
            options["report"] = bar.update
            if array:
                heads, size = _write_array(out, images, options)
            else:
                heads, size = _write_file(out, images, options)
    outputs.say(out, f"{arguments.out}: {rate(len(images), images.size, size)}")
    _advise(heads)


Written = tuple[list[container.Head], int]


def _write_file(out: str, images: np.ndarray, options: dict) -> Written:
    """Writes a file; its head, and its bytes."""
    if out == outputs.STDOUT:
        head = writer.write(sys.stdout.buffer, images, **options)
    else:
        head = writer.compress_file(out, images, **options)
    size = sum((head.end, head.model_length, head.notes_length))
    return [head], size + sum(block.length for block in head.blocks)


def _write_array(out: str, images: np.ndarray, options: dict) -> Written:
    """Writes a zarr array; the heads of its chunks, and bytes of all."""
    fields = ("mode", "max_error", "model", "block_images", "invert")
    chosen = Options(**{name: options[name] for name in fields}).checked()
    model = chosen.model
    if options["embed_model"]:
        _, _, model = model_file.load(model)
    kept = {name: options.get(name) for name in ("labels", "names")}
    load_zarr(out).write(
        out,
        images,
        max_error=chosen.max_error,
        model=model,
        block_images=chosen.block_images,
        invert=chosen.invert,
        inverted=options["inverted"],
        report=options["report"],
        **kept,
    )
    written = [path for path in pathlib.Path(out).rglob("*") if path.is_file()]
    place = pathlib.Path(out, "images" if options.keys() & kept.keys() else "", "c")
    chunks = [path for path in written if path.is_relative_to(place)]
    heads = [mapping.read_head(path)[0] for path in chunks]
    return heads, sum(path.stat().st_size for path in written)


def _say_estimate(about: Estimate, images: np.ndarray) -> None:
    size = about.bits * images.size / 8
    print(
        f"estimated from {about.images} of {len(images)} images: {size:.3g} bytes, "
        f"{about.bits:.3f} bits per pixel (bzip2 {about.bzip2:.3f}), in "
        f"{console.format_duration(about.seconds)}; decompressing takes about half "
        "of that"
    )


def _advise(heads: list[container.Head]) -> None:
    """Says so where blocks did not suit the model, and what helps."""
    held = [block for head in heads for block in head.blocks]
    other = [block for block in held if block.kind != container.CODED]
    if not other or heads[0].mode == container.LATENT:
        return
    pixels = heads[0].height * heads[0].width
    bits = 8 * sum(b.length for b in other) / sum(b.images for b in other) / pixels
    if pixels > container.MOST_CODED_PIXELS:
        help = f"images of over {container.MOST_CODED_PIXELS} pixels are never coded"
    else:
        help = (
            "if that is much, `codec compress --train` trains one for such images "
            "(`codec train` and --model to use it for several files)"
        )
    console.warn(
        f"{len(other)} of {len(held)} blocks are unlike what the model knows "
        f"and hold {bits:.2f} bits per pixel without it; {help}"
    )


def _train(
    arguments: argparse.Namespace, images: np.ndarray, options: dict, folder: str
) -> dict:
    """Options with a model trained for the images, if that makes the file smaller."""
    if arguments.mode != "lossless" or arguments.model is not None:
        raise UserError("--train: needs --mode=lossless and no --model")
    if not len(images) or images[0].size > container.MOST_CODED_PIXELS:
        raise UserError(
            f"--train: needs images of at most {container.MOST_CODED_PIXELS} pixels"
        )
    _, _, content = model_file.load(TRAIN_FROM)
    before = estimate(images, options)
    minutes = console.format_duration(60 * arguments.minutes)
    expected = TRAINED_SHARE * before.bzip2

    def gain(bits: float) -> float:
        return (before.bits - bits) * images.size / 8 - len(content)

    what = (
        f"--train: without it about {before.bits:.3f} bits per pixel; a trained model "
        f"takes {{}} {{:.3f}} and itself {len(content)} bytes: "
    )
    line = what.format("about", expected)
    if gain(expected) <= 0:
        console.warn(f"{line}the file is too small to pay for it, none is trained")
        return {}
    outputs.say(
        arguments.out,
        f"{line}{gain(expected):.3g} bytes saved; it trains for {minutes}",
    )
    path = os.path.join(folder, "model.ejm")
    bits = _fit(images, arguments, path, os.path.join(folder, "training"))
    line = what.format("on held-out images", bits)
    if gain(bits) <= 0:
        console.warn(f"{line}that does not pay, and the shipped one is used")
        return {}
    outputs.say(arguments.out, f"{line}{gain(bits):.3g} bytes saved")
    return {"model": path, "embed_model": True}


def _fit(
    images: np.ndarray, arguments: argparse.Namespace, path: str, folder: str
) -> float:
    """Trains on from a shipped model; bits per pixel on images held out."""
    from emnist_jax.codec import fit, quantise  # they load an optimiser
    from emnist_jax.codec.commands.train import train_model

    shipped, _, _ = model_file.load(TRAIN_FROM)
    config = fit.PixelTraining(model=shipped.config, minutes=arguments.minutes)
    start = quantise.dequantise(shipped.arrays, fit.init_params(config))
    plain = writer.plain_images(images, arguments.images)
    return train_model(path, plain, config, folder, start)["bpp_quantised"]
