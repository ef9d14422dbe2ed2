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
import time
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np

from emnist_jax import codec
from emnist_jax.cli.arguments import comma_separated, count
from emnist_jax.cli.command import run_command
from emnist_jax.codec import model_file, sampler
from emnist_jax.runs.plots import STYLE, save
from emnist_jax.storage import paths
from experiments import study, tables


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


def format_markdown(rows: list[dict], images: int, title: str) -> str:
    """The rows as Markdown."""
    table = tables.markdown(
        "model | multiply-adds of a hard / easy pixel | bytes | bits per pixel | "
        "images/s decoded | encoded and verified | decoded per second of CPU",
        (
            (
                tables.plain(row["model"]),
                f"{row['multiply_adds_hard_pixel']:,} / "
                f"{row['multiply_adds_easy_pixel']:,}",
                f"{row['model_bytes']:,}",
                f"{row['bpp']:.3f}",
                f"{row['decode_images_per_second']:.0f}",
                f"{row['encode_images_per_second']:.0f}",
                f"{row['decode_images_per_cpu_second']:.0f}",
            )
            for row in rows
        ),
    )
    return (
        f"# Rate against speed, {images} held-out training images, {title}\n\n{table}"
    )


def draw(rows: list[dict], path: pathlib.Path) -> None:
    """Bits per pixel against decoded images a second."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6, 4))
        for row in rows:
            at = row["decode_images_per_second"], row["bpp"]
            axes.plot(*at, "o", color="C0")
            offset = {"xytext": (4, -10), "textcoords": "offset points"}
            axes.annotate(row["model"], at, **offset)
        axes.set_xlabel("decoded images per second, 2 cores")
        axes.set_ylabel("bits per pixel, held-out train images")
    save(figure, path)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures all models in one run."""
    parser = study.StudyParser(__doc__)
    add, help = parser.add_argument, "model files, comma-separated"
    add("--models", type=comma_separated(), required=True, help=help)
    parser.add_data()
    add("--images", type=count, default=2048, help="held-out images used")
    add("--out", required=True, help="name of the files, without suffix")
    add("--figure", help="the figure, if not beside the others")
    flags = parser.parse_args(argv)
    out = flags.out.removesuffix(".json")
    figure = flags.figure or f"{out}.png"
    for name in (f"{out}.json", f"{out}.md", figure):
        paths.check_output(name, *flags.models, flags.emnist_archive, flag="--out=")
    dataset = study.load_dataset(flags)
    _, held_out = sampler.hold_out_distinct(dataset.train.images[..., 0], seed=0)
    rows = [measure(path, held_out[: flags.images]) for path in flags.models]
    rows.sort(key=lambda row: row["multiply_adds_hard_pixel"])
    text = format_markdown(rows, flags.images, dataset.source["title"])
    study.write(out, {"source": dataset.source, "rows": rows}, text)
    draw(rows, pathlib.Path(figure))


if __name__ == "__main__":
    run_command(main)
