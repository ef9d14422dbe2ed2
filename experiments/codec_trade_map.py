"""Rate against speed of pixel models of different cost, a table and a figure.

    python -m emnist_jax.codec train emnist/balanced maps/96.ejm --width=96 --steps=700
    ... (one call a width)
    python experiments/codec_trade_map.py maps/*.ejm --dataset=emnist/balanced \
        --out=experiments/results/codec/trade_map

All networks of the map see the same 700 x 4096 pixels, so that it shows what width
buys at equal, short training; the shipped models are trained longer. Rates are of
real files of held-out *training* images: the test set takes no part.
"""

import argparse
import pathlib
import time

import matplotlib.pyplot as plt
import numpy as np

from emnist_jax import codec, data, files
from emnist_jax.codec import fit, model_file
from emnist_jax.errors import run_command


def measure(path: str, images: np.ndarray) -> dict:
    """Size and speed of one model file on uint8 [N, 28, 28]."""
    model, _, content = model_file.load(path)
    options = {"model": path, "block_images": 512}
    codec.decompress(codec.compress(images, **options), model=path)  # compiles
    started = time.perf_counter()
    compressed = codec.compress(images, **options)
    encoded = time.perf_counter()
    codec.decompress(compressed, model=path)
    decoded = time.perf_counter()
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
    }


def draw(rows: list[dict], path: pathlib.Path) -> None:
    """Bits per pixel against decoded images a second."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for row in rows:
        x, y = row["decode_images_per_second"], row["bpp"]
        axes.plot(x, y, "o", color="C1" if row["model"] in model_file.NAMES else "C0")
        axes.annotate(row["model"], (x, y), xytext=(4, 4), textcoords="offset points")
    axes.set_xscale("log")
    axes.set_xlabel("decoded images per second, 2 cores")
    axes.set_ylabel("bits per pixel, held-out train images")
    axes.grid(alpha=0.3)
    with files.write_atomically(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)


def main() -> None:
    """Measures all models in one run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="model files, or default and fast")
    parser.add_argument("--dataset", default="glyphs")
    parser.add_argument("--data_dir")
    parser.add_argument("--emnist_archive")
    parser.add_argument("--images", type=int, default=2048, help="held-out images used")
    parser.add_argument("--out", required=True, help="without suffix: .json and .png")
    flags = parser.parse_args()
    dataset = data.load(
        flags.dataset, data_dir=flags.data_dir, emnist_archive=flags.emnist_archive
    )
    _, held_out = fit.hold_out(dataset.train.images[..., 0], seed=0)
    rows = [measure(path, held_out[: flags.images]) for path in flags.models]
    rows.sort(key=lambda row: row["multiply_adds_hard_pixel"])
    out = pathlib.Path(flags.out)
    files.write_json(out.with_suffix(".json"), {"source": dataset.source, "rows": rows})
    draw(rows, out.with_suffix(".png"))


if __name__ == "__main__":
    run_command(main)
