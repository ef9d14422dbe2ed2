"""Speed of a shipped pixel model on the whole test split, real files.

    python -m experiments.codec_speed --model=default --emnist_archive=gzip.zip \
        --repeats=3 --out=experiments/results/codec/speed.json

Each call adds its repeats to the file, in which medians and spread are computed over
all of them; the machine should have nothing else to do. Two minutes a repeat on two
cores. Encoding includes its verification; programs are compiled before.
"""

import pathlib
import time
from collections.abc import Sequence

import numpy as np

from emnist_jax import codec
from emnist_jax.cli.arguments import count
from emnist_jax.cli.command import run_command
from emnist_jax.storage import files, paths
from experiments import study

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


def main(argv: Sequence[str] | None = None) -> None:
    """Adds repeats to one JSON file."""
    parser = study.StudyParser(__doc__)
    parser.add_data()
    add = parser.add_argument
    add("--model", default="default", help="name or file of a pixel model")
    add("--images", type=count, help="the first so many test images [default: all]")
    add("--repeats", type=count, default=1, help="to add")
    add("--out", required=True, help="a .json file")
    flags = parser.parse_args(argv)
    paths.check_output(flags.out, flags.emnist_archive, flags.model, flag="--out=")
    dataset = study.load_dataset(flags)
    images, path = dataset.test.images[: flags.images], pathlib.Path(flags.out)
    about = {"source": dataset.source, "images": len(images)}
    results = study.resume(path, about, "models")
    repeats = results["models"].get(flags.model, {}).get("repeats", [])
    # Compiles the programs that files of this size need.
    codec.decompress(codec.compress(images[: len(images) // 4], model=flags.model))
    repeats += [measure(images, flags.model) for _ in range(flags.repeats)]
    results["models"][flags.model] = {**summary(repeats), "repeats": repeats}
    files.write_json(path, results)


if __name__ == "__main__":
    run_command(main)
