"""Lossless size of the codec beside other codecs, on the same images.

    pip install -e '.[studies]'
    python -m experiments.codec_compare --emnist_archive=gzip.zip --near_every=1 \
        --out=experiments/results/codec/compare.json

About ten minutes on two cores for the 18,800 test images of EMNIST-Balanced; a run
that was stopped goes on where it was. Expect the default model below 1 bit per pixel
and bzip2, the best general compressor, at about 2. `codec_speed.py` measures speeds.
"""

import bz2
import dataclasses
import io
import lzma
import zlib
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from emnist_jax import codec
from emnist_jax.cli.arguments import count
from emnist_jax.cli.command import run_command
from emnist_jax.cli.errors import UserError
from emnist_jax.codec import container, model_file
from emnist_jax.codec.writer import LARGE_BLOCK
from emnist_jax.storage import files
from experiments import image_codecs, study, tables

# Theoretical likelihoods on NIST's own split, not files: never the same test.
PUBLISHED = {
    "Sparse PC (Dang et al. 2022)": 1.60,
    "HCLT (Liu & Van den Broeck 2021)": 1.82,
    "BitSwap (as run by Dang et al.)": 1.96,
    "IDF (as run by Dang et al.)": 2.15,
    "BB-ANS (as run by Dang et al.)": 2.23,
}
LOSSLESS = ("default", "fast", "small")  # models
ERRORS = (0, 1, 2, 4)  # largest, of near-lossless files
SHEET_COLUMNS = 100  # images side by side in a sprite sheet


def _pillow(kind: str, **options) -> Callable[[np.ndarray], bytes]:
    def encode(image: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(image).save(file, kind, **options)
        return file.getvalue()

    return encode


def _imagecodecs(kind: str, **options) -> Callable[..., bytes]:
    def encode(content) -> bytes:
        import imagecodecs

        return getattr(imagecodecs, f"{kind}_encode")(content, **options)

    return encode


IMAGE_CODERS: dict[str, Callable[[np.ndarray], bytes]] = {
    "PNG": _pillow("PNG", optimize=True),
    "WebP lossless": _pillow("WEBP", lossless=True, quality=100, method=6),
    "JPEG XL": _imagecodecs("jpegxl", lossless=True, effort=9),
}
BYTE_CODERS: dict[str, Callable[[bytes], bytes]] = {
    "zlib 9": lambda content: zlib.compress(content, 9),
    "bzip2 9": lambda content: bz2.compress(content, 9),
    "xz 9e": lambda content: lzma.compress(content, preset=9 | lzma.PRESET_EXTREME),
    "zstd 22": _imagecodecs("zstd", level=22),
}


def general_row(name: str, images: np.ndarray, alone: np.ndarray) -> dict:
    """Sizes of another codec: everything as one stream, and images alone."""
    if name in IMAGE_CODERS:
        encode = IMAGE_CODERS[name]
        rows = -(-len(images) // SHEET_COLUMNS)
        sheet = image_codecs.sheet(images, rows, SHEET_COLUMNS)
        together, single = len(encode(sheet)), map(encode, alone)
    else:
        encode = BYTE_CODERS[name]
        together = len(encode(images.tobytes()))
        single = (encode(image.tobytes()) for image in alone)
    return _row(
        name, 8 * together / images.size, 8 * sum(map(len, single)) / alone.size
    )


def _row(name: str, one_stream: float, alone: float, **more) -> dict:
    return {"name": name, "bpp_one_stream": one_stream, "bpp_alone": alone, **more}


def codec_row(name: str, images: np.ndarray, alone: np.ndarray) -> dict:
    """Sizes with a shipped model; compressing verifies that every pixel is back."""
    content = codec.compress(images, model=name, block_images=LARGE_BLOCK)
    single = single_sizes(name, alone)
    model_bytes = len(model_file.load(name)[2])
    return _row(
        f"this codec, {name}",
        8 * len(content) / images.size,
        8 * sum(single) / alone.size,
        bytes=len(content),
        bpp_with_model=8 * (len(content) + model_bytes) / images.size,
        model_bytes=model_bytes,
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


def lossless_row(max_error: int, images: np.ndarray, alone: np.ndarray) -> dict:
    """What near-lossless files are compared with."""
    content = codec.compress(images, block_images=LARGE_BLOCK)
    bpp = 8 * len(content) / images.size
    return {"max_error": max_error, "largest_difference": 0, "bpp": bpp}


def near_row(max_error: int, images: np.ndarray, alone: np.ndarray) -> dict:
    """Size at a small error; decoded once more to see the largest one."""
    options = {"max_error": max_error, "block_images": LARGE_BLOCK}
    content = codec.compress(images, mode="near-lossless", **options)
    worst = np.abs(codec.decompress(content).astype(int) - images).max()
    if worst > max_error:
        raise AssertionError(f"off by {worst}")
    bpp = 8 * len(content) / images.size
    return {"max_error": max_error, "largest_difference": int(worst), "bpp": bpp}


def format_markdown(results: dict) -> str:
    """The results as Markdown."""
    sizes = (
        (
            row["name"],
            f"{row['bpp_one_stream']:.3f}",
            f"{row['bpp_with_model']:.3f}" if "bpp_with_model" in row else "",
            f"{row['bpp_alone']:.3f}",
        )
        for row in sorted(results["codecs"].values(), key=lambda r: r["bpp_one_stream"])
    )
    near = results["near_lossless"]
    shares = (
        (row["max_error"], f"{row['bpp']:.3f}", f"{row['bpp'] / near['0']['bpp']:.3f}")
        for row in near.values()
    )
    published = ", ".join(f"{name} {bpp:.2f}" for name, bpp in PUBLISHED.items())
    parts = [
        f"# Lossless sizes, {results['source']['title']}\n",
        f"Bits per pixel of the same {results['images']} test images as one stream "
        "(image codecs: as one sprite sheet; this codec: one file), and of "
        f"{results['alone']} of them alone. With the model: its file counted in.\n",
        tables.markdown(" | one stream | with the model | alone", sizes),
        "Published by others, theoretical likelihoods on NIST's own split, not files "
        f"and not these images: {published}.\n",
        f"Near-lossless, {results['near_lossless_images']} test images:\n",
        tables.markdown(
            "largest error | bits per pixel | of the lossless bytes", shares
        ),
    ]
    return "\n".join(parts)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures what the file does not hold yet, row by row, and writes the table."""
    parser = study.StudyParser(__doc__, "imagecodecs")
    parser.add_data()
    add = parser.add_argument
    add("--images", type=count, help="the first so many test images [default: all]")
    add("--alone", type=count, default=1000, help="images coded singly")
    add("--near_every", type=count, default=5, help="one in so many near-lossless")
    add("--out", required=True, help="a .json file; a .md goes along")
    flags = parser.parse_args(argv)
    out = study.check_output(flags.out, flags.emnist_archive)
    dataset = study.load_dataset(flags)
    images = np.ascontiguousarray(dataset.test.images[: flags.images, ..., 0])
    if flags.alone > len(images):
        raise UserError(f"--alone={flags.alone}: give 1 to {len(images)}")
    alone = images[np.linspace(0, len(images) - 1, flags.alone).astype(int)]
    some = np.ascontiguousarray(images[:: flags.near_every])
    about = {
        "source": dataset.source,
        "images": len(images),
        "alone": len(alone),
        "near_lossless_images": len(some),
        "published_likelihoods_on_nists_split": PUBLISHED,
    }
    results = study.resume(out, about, "codecs", "near_lossless")
    rows = [("codecs", name, codec_row, name, images) for name in LOSSLESS]
    rows += [
        ("codecs", name, general_row, name, images)
        for name in (*IMAGE_CODERS, *BYTE_CODERS)
    ]
    rows += [
        ("near_lossless", str(error), near_row if error else lossless_row, error, some)
        for error in ERRORS
    ]
    for part, name, measure, what, pixels in rows:
        if name not in results[part]:
            results[part][name] = measure(what, pixels, alone)
            files.write_json(out, results)
    study.write(out.with_suffix(""), results, format_markdown(results))


if __name__ == "__main__":
    run_command(main)
