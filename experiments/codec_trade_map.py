"""Rate against speed of pixel models of different cost: JSON, a table, a figure.

    train() {
      python -m emnist_jax.codec train emnist/balanced maps/w$1.ejm --steps=400 \
        --width=$1 --blocks=$2 --fine_width=$3 --gate_width=$4
    }
    train 32 1 32 16; train 64 2 32 32; train 96 2 48 32; train 128 2 48 32
    train 192 2 64 32; train 256 2 96 64
    python -m experiments.codec_trade_map --models=$(echo maps/*.ejm | tr ' ' ,) \
        --images=640 --out=experiments/results/codec/trade_map \
        --figure=docs/figures/codec_trade_map.png

All networks see the same 400 x (4096 + 1024) pixels, at a highest rate of 0.011, so
that the map shows what width buys at equal, short training; the shipped models are
trained for longer. Rates are of real files of *training* images that `train` holds
out (seed 0): the test set takes no part, and models that were trained on other parts
of the training images, as the shipped ones, do not belong in this map.
"""

import pathlib
import sys
import time

import matplotlib.pyplot as plt
import numpy as np

from emnist_jax import codec, files, paths
from emnist_jax.codec import model_file, sampler
from emnist_jax.errors import run_command
from emnist_jax.flags import Flag, parse_flags
from experiments import matrix


def measure(path: str, images: np.ndarray) -> dict:
    """Size and speed of one model file on uint8 [N, 28, 28]."""
    model, _, content = model_file.load(path)
    options = {"model": path, "block_images": 512}
    codec.decompress(codec.compress(images, **options), model=path)  # compiles
    started = time.perf_counter()
    compressed = codec.compress(images, **options)
    encoded = time.perf_counter()
    busy = time.process_time()
    codec.decompress(compressed, model=path)
    decoded, busy = time.perf_counter(), time.process_time() - busy
    main, gate = model.config.multiply_adds()
    return {
        "model": pathlib.Path(path).stem,
        "width": model.config.width,
        "blocks": model.config.blocks,
        "multiply_adds_hard_pixel": main,
        "multiply_adds_easy_pixel": gate,
        "model_bytes": len(content),
        "bpp": 8 * len(compressed) / images.size,
        "encode_images_per_second": len(images) / (encoded - started),
        "decode_images_per_second": len(images) / (decoded - encoded),
        "decode_images_per_cpu_second": len(images) / busy,
    }


def table(rows: list[dict], images: int, title: str) -> str:
    """The rows as Markdown."""
    lines = [
        f"# Rate against speed, {images} held-out training images, {title}\n",
        "| model | multiply-adds of a hard / easy pixel | bytes | bits per pixel "
        "| images/s decoded | encoded and verified | decoded per second of CPU |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['model']} | {row['multiply_adds_hard_pixel']:,} / "
            f"{row['multiply_adds_easy_pixel']:,} | {row['model_bytes']:,} "
            f"| {row['bpp']:.3f} | {row['decode_images_per_second']:.0f} "
            f"| {row['encode_images_per_second']:.0f} "
            f"| {row['decode_images_per_cpu_second']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def draw(rows: list[dict], path: pathlib.Path) -> None:
    """Bits per pixel against decoded images a second."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for row in rows:
        x, y = row["decode_images_per_second"], row["bpp"]
        axes.plot(x, y, "o", color="C0")
        axes.annotate(row["model"], (x, y), xytext=(4, -10), textcoords="offset points")
    axes.set_xlabel("decoded images per second, 2 cores")
    axes.set_ylabel("bits per pixel, held-out train images")
    axes.grid(alpha=0.3)
    with files.write_atomically(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)


def main() -> None:
    """Measures all models in one run."""
    flags = parse_flags(
        sys.argv,
        __doc__.strip(),
        Flag("models", "model files, comma-separated", required=True),
        *matrix.DATA_FLAGS,
        Flag("images", "held-out images used", int, 2048),
        Flag("out", "name of the files, without suffix", required=True),
        Flag("figure", "the figure, if not beside the others"),
    )
    matrix.check_positive(flags, "images")
    inputs = *flags.models.split(","), flags.emnist_archive
    # Not with_suffix, which would take the end of a name such as v1.2 for one.
    out = flags.out.removesuffix(".json")
    names = [f"{out}.json", f"{out}.md", flags.figure or f"{out}.png"]
    about, text, figure = (
        paths.check_output(name, *inputs, flag="--out=") for name in names
    )
    dataset = matrix.load_dataset(flags)
    _, held_out = sampler.hold_out_distinct(dataset.train.images[..., 0], seed=0)
    rows = [measure(path, held_out[: flags.images]) for path in flags.models.split(",")]
    rows.sort(key=lambda row: row["multiply_adds_hard_pixel"])
    files.write_json(about, {"source": dataset.source, "rows": rows})
    with files.write_atomically(text) as temporary:
        temporary.write_text(table(rows, flags.images, dataset.source["title"]))
    draw(rows, figure)


if __name__ == "__main__":
    run_command(main)
