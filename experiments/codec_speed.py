"""Speed of a shipped pixel model on the whole test split, real files.

    python -m experiments.codec_speed --model=default --emnist_archive=gzip.zip \
        --repeats=3 --out=experiments/results/codec/speed.json

Each call adds its repeats to the file, in which medians and spread are computed over
all of them; the machine should have nothing else to do. Two minutes a repeat on two
cores. Encoding includes its verification; programs are compiled before.
"""

import pathlib
import sys
import time

import numpy as np

from emnist_jax import codec, files, paths
from emnist_jax.errors import UserError, run_command
from emnist_jax.flags import Flag, parse_flags
from experiments import matrix

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
    flags = parse_flags(
        sys.argv,
        __doc__.strip(),
        *matrix.DATA_FLAGS,
        Flag("model", "name or file of a pixel model", default="default"),
        Flag("images", "the first so many test images (default: all)", int),
        Flag("repeats", "to add", int, 1),
        Flag("out", "a .json file", required=True),
    )
    matrix.check_positive(flags, "images", "repeats")
    paths.check_output(flags.out, flags.emnist_archive, flags.model, flag="--out=")
    dataset = matrix.load_dataset(flags)
    images = dataset.test.images[: flags.images]
    path, about = pathlib.Path(flags.out), {"source": dataset.source}
    about["images"] = len(images)
    results = files.read_json(path) if path.exists() else about | {"models": {}}
    if any(results.get(name) != value for name, value in about.items()):
        raise UserError(
            f"--out={path}: was made with other images; choose another file"
        )
    repeats = results["models"].get(flags.model, {}).get("repeats", [])
    # Compiles the programs that files of this size need.
    codec.decompress(codec.compress(images[: len(images) // 4], model=flags.model))
    repeats += [measure(images, flags.model) for _ in range(flags.repeats)]
    results["models"][flags.model] = {**summary(repeats), "repeats": repeats}
    files.write_json(path, results)


if __name__ == "__main__":
    run_command(main)
