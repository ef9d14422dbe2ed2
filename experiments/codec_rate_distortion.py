"""Rate and distortion of coded latents, as real files.

    python experiments/codec_rate_distortion.py --run=runs/NAME \
        --dataset=emnist/balanced --out=experiments/results/codec/latents.json

Each row is a file of the whole test split at so many bits a latent before entropy
coding; `float32` is what the latents take uncompressed.
"""

import argparse
import pathlib

import numpy as np

import emnist_jax
from emnist_jax import codec, data, files
from emnist_jax.errors import run_command

TOLERANCE = 0.01  # of the mean squared error, what counts as equal


def mean_squared_error(images: np.ndarray, found: np.ndarray) -> float:
    """Of uint8 [N, 28, 28, 1], with pixels in [0, 1]."""
    difference = images.astype(np.float64) - found
    return float((difference**2).mean() / 255**2)


def main() -> None:
    """Measures and writes one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="folder of a trained autoencoder")
    parser.add_argument("--dataset", default="glyphs")
    parser.add_argument("--data_dir")
    parser.add_argument("--emnist_archive")
    parser.add_argument(
        "--images", type=int, default=0, help="the first so many; 0 all"
    )
    parser.add_argument("--out", required=True)
    flags = parser.parse_args()
    dataset = data.load(
        flags.dataset, data_dir=flags.data_dir, emnist_archive=flags.emnist_archive
    )
    images = dataset.test.images[: flags.images or None]
    run = emnist_jax.load_run(flags.run)
    latents = run.encode(images)
    exact = np.floor(run.decode(latents) * 255 + 0.5)
    rows = [
        {
            "bits": 32,
            "bytes": latents.nbytes,
            "bpp": 8 * latents.nbytes / images.size,
            "mse": mean_squared_error(images, exact),
        }
    ]
    for bits in range(8, 1, -1):
        content = codec.compress(images, mode="latent", run=run, bits=bits)
        found = codec.decompress(content, run=run)
        rows.append(
            {
                "bits": bits,
                "bytes": len(content),
                "bpp": 8 * len(content) / images.size,
                "mse": mean_squared_error(images, found),
            }
        )
    equal = [row for row in rows if row["mse"] <= (1 + TOLERANCE) * rows[0]["mse"]]
    smallest = min(equal, key=lambda row: row["bytes"])
    files.write_json(
        flags.out,
        {
            "source": dataset.source,
            "run": pathlib.Path(flags.run).name,
            "images": len(images),
            "rows": rows,
            "bits_at_equal_mse": smallest["bits"],
            "bytes_of_float32_at_equal_mse": smallest["bytes"] / rows[0]["bytes"],
        },
    )


if __name__ == "__main__":
    run_command(main)
