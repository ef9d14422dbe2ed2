"""Lossless size and speed of the codec beside other codecs, on the same images.

    pip install -e .[codecs]
    python experiments/codec_compare.py --dataset=emnist/balanced \
        --emnist_archive=gzip.zip --out=experiments/results/codec/compare.json

About ten minutes on two cores for the 18,800 test images of EMNIST-Balanced; one
run measures everything. Expect the default model below 1.02 bits per pixel and
bzip2, the best general compressor, at about 2.
"""

import argparse
import bz2
import dataclasses
import io
import lzma
import time
import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np
from PIL import Image

from emnist_jax import codec, data, files
from emnist_jax.codec import container, model_file
from emnist_jax.errors import UserError, run_command

# Theoretical likelihoods on NIST's own split, not files: never the same test.
PUBLISHED = {
    "Sparse PC (Dang et al. 2022)": 1.60,
    "HCLT (Liu & Van den Broeck 2021)": 1.82,
    "BitSwap (as run by Dang et al.)": 1.96,
    "IDF (as run by Dang et al.)": 2.15,
    "BB-ANS (as run by Dang et al.)": 2.23,
}
LOSSLESS = ("default", "fast")  # models
SHEET_COLUMNS = 100  # images side by side in a sprite sheet


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", optimize=True)
    return file.getvalue()


def _webp(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "WEBP", lossless=True, quality=100, method=6)
    return file.getvalue()


def _jpegxl(image: np.ndarray) -> bytes:
    return imagecodecs.jpegxl_encode(image, lossless=True, effort=7)


IMAGE_CODERS: dict[str, Callable[[np.ndarray], bytes]] = {
    "PNG": _png,
    "WebP lossless": _webp,
    "JPEG XL": _jpegxl,
}
BYTE_CODERS: dict[str, Callable[[bytes], bytes]] = {
    "zlib 9": lambda content: zlib.compress(content, 9),
    "bzip2 9": lambda content: bz2.compress(content, 9),
    "xz 9e": lambda content: lzma.compress(content, preset=9 | lzma.PRESET_EXTREME),
    "zstd 22": lambda content: imagecodecs.zstd_encode(content, level=22),
}


def sheet(images: np.ndarray) -> np.ndarray:
    """uint8 [N, h, w] as one image, rows of 100, padded with black."""
    count, height, width = images.shape
    rows = -(-count // SHEET_COLUMNS)
    padded = np.zeros((rows * SHEET_COLUMNS, height, width), np.uint8)
    padded[:count] = images
    tiles = padded.reshape(rows, SHEET_COLUMNS, height, width)
    return tiles.swapaxes(1, 2).reshape(rows * height, -1)


def general_rows(images: np.ndarray, alone: np.ndarray) -> list[dict]:
    """Sizes of other codecs: everything as one stream, and images alone."""
    pixels, few = images.size, alone.size
    rows = []
    for name, encode in IMAGE_CODERS.items():
        single = sum(len(encode(image)) for image in alone)
        together = len(encode(sheet(images)))
        rows.append(_row(name, 8 * together / pixels, 8 * single / few))
    for name, encode in BYTE_CODERS.items():
        single = sum(len(encode(image.tobytes())) for image in alone)
        together = len(encode(images.tobytes()))
        rows.append(_row(name, 8 * together / pixels, 8 * single / few))
    return rows


def _row(name: str, one_stream: float, alone: float, **more) -> dict:
    return {"name": name, "bpp_one_stream": one_stream, "bpp_alone": alone, **more}


def codec_row(name: str, images: np.ndarray, alone: np.ndarray) -> dict:
    """Sizes and speeds of a shipped model; encoding includes its verification."""
    codec.decompress(codec.compress(images[:2000], model=name))  # compiles programs
    started = time.perf_counter()
    content = codec.compress(images, model=name)
    encoded = time.perf_counter()
    found = codec.decompress(content)
    decoded = time.perf_counter()
    if not np.array_equal(found, images):
        raise AssertionError("pixels differ")
    single = single_sizes(name, alone)
    model_bytes = len(model_file.load(name)[2])
    return _row(
        f"this codec, {name}",
        8 * len(content) / images.size,
        8 * sum(single) / alone.size,
        bytes=len(content),
        bpp_with_model=8 * (len(content) + model_bytes) / images.size,
        model_bytes=model_bytes,
        encode_images_per_second=len(images) / (encoded - started),
        decode_images_per_second=len(images) / (decoded - encoded),
    )


def single_sizes(name: str, images: np.ndarray) -> list[int]:
    """Bytes of a file for each image alone.

    A block of one image holds the same bytes as in a file of its own, so one run
    codes them all; the first three files are made for real, to be sure.
    """
    content = codec.compress(images, model=name, block_images=1)
    head = container.parse(content, len(content), name)
    one = dataclasses.replace(head, images=1, blocks=())
    sizes = [
        len(container.pack(one, [(block.kind, block.length, block.checksum)]))
        + block.length
        for block in head.blocks
    ]
    real = [len(codec.compress(image[None], model=name)) for image in images[:3]]
    if sizes[:3] != real:
        raise AssertionError(f"{sizes[:3]} is not {real}")
    return sizes


def near_lossless(images: np.ndarray) -> list[dict]:
    """Sizes at small errors, as shares of the lossless file of the same images."""
    lossless_bytes = len(codec.compress(images))
    rows = []
    for max_error in (1, 2, 4, 8):
        content = codec.compress(images, mode="near-lossless", max_error=max_error)
        worst = np.abs(codec.decompress(content).astype(int) - images).max()
        if worst > max_error:
            raise AssertionError(f"off by {worst}")
        rows.append(
            {
                "max_error": max_error,
                "bpp": 8 * len(content) / images.size,
                "share_of_lossless": len(content) / lossless_bytes,
            }
        )
    return rows


def main() -> None:
    """Measures and writes one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="glyphs")
    parser.add_argument("--emnist_archive")
    parser.add_argument(
        "--images", type=int, default=0, help="the first so many; 0 all"
    )
    parser.add_argument("--alone", type=int, default=1000, help="images coded singly")
    parser.add_argument("--every", type=int, default=5, help="near-lossless: 1 in so")
    parser.add_argument("--skip_others", action="store_true", help="this codec only")
    parser.add_argument("--out", required=True)
    flags = parser.parse_args()
    dataset = data.load(flags.dataset, emnist_archive=flags.emnist_archive)
    images = dataset.test.images[..., 0]
    images = np.ascontiguousarray(images[: flags.images or len(images)])
    if not 0 < flags.alone <= len(images):
        raise UserError(f"--alone={flags.alone}: give 1 to {len(images)}")
    alone = images[np.linspace(0, len(images) - 1, flags.alone).astype(int)]
    ours = [codec_row(name, images, alone) for name in LOSSLESS]
    results = {
        "source": dataset.source,
        "images": len(images),
        "alone": len(alone),
        "codecs": ours,
        "near_lossless_images": len(images[:: flags.every]),
        "near_lossless": near_lossless(images[:: flags.every]),
        "published_likelihoods_on_nists_split": PUBLISHED,
    }
    if not flags.skip_others:
        results["codecs"] += general_rows(images, alone)
    files.write_json(flags.out, results)


if __name__ == "__main__":
    run_command(main)
