"""Speed of a shipped pixel model on the whole test split, real files.

    python experiments/codec_speed.py --model=default --dataset=emnist/balanced \
        --emnist_archive=gzip.zip --out=experiments/results/codec/speed.json

Each call adds its repeats to the file, in which medians and spread are computed over
all of them; the machine should have nothing else to do. Two minutes a repeat on two
cores. Encoding includes its verification; programs are compiled before.
"""

import argparse
import json
import pathlib
import time

import numpy as np

from emnist_jax import codec, data, files
from emnist_jax.errors import run_command

SPEEDS = ("encode_images_per_second", "decode_images_per_second")


def measure(images: np.ndarray, model: str) -> dict:
    """One repeat on uint8 [N, 28, 28, 1]."""
    started = time.perf_counter()
    content = codec.compress(images, model=model)
    encoded = time.perf_counter()
    found = codec.decompress(content)
    decoded = time.perf_counter()
    if not np.array_equal(found, images):
        raise AssertionError("pixels differ")
    seconds = (encoded - started, decoded - encoded)
    rates = [len(images) / taken for taken in seconds]
    return {"bytes": len(content), **dict(zip(SPEEDS, rates, strict=True))}


def summary(repeats: list[dict]) -> dict:
    """Median, lowest and highest of each speed."""
    columns = {name: [repeat[name] for repeat in repeats] for name in SPEEDS}
    return {
        name: {"median": float(np.median(c)), "lowest": min(c), "highest": max(c)}
        for name, c in columns.items()
    }


def main() -> None:
    """Adds repeats to one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--dataset", default="glyphs")
    parser.add_argument("--data_dir")
    parser.add_argument("--emnist_archive")
    parser.add_argument("--images", type=int, default=0, help="the first so many")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", required=True)
    flags = parser.parse_args()
    dataset = data.load(
        flags.dataset, data_dir=flags.data_dir, emnist_archive=flags.emnist_archive
    )
    images = dataset.test.images[: flags.images or None]
    path = pathlib.Path(flags.out)
    results = json.loads(path.read_text()) if path.exists() else {"models": {}}
    results |= {"source": dataset.source, "images": len(images)}
    repeats = results["models"].get(flags.model, {}).get("repeats", [])
    # Compiles the programs that files of this size need.
    codec.decompress(codec.compress(images[: len(images) // 4], model=flags.model))
    repeats += [measure(images, flags.model) for _ in range(flags.repeats)]
    results["models"][flags.model] = {**summary(repeats), "repeats": repeats}
    files.write_json(path, results)


if __name__ == "__main__":
    run_command(main)
