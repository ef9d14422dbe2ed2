"""Speed of a pixel model on the whole test split, real files, of checkouts by turns.

    python -m experiments.codec_speed --model=default --emnist_archive=gzip.zip \
        --repeats=3 --against=../before --out=experiments/results/codec/speed.json

Each call adds its repeats to the file, in which medians and spread are computed over
all of them. Images per second of the clock count if the machine has nothing else to
do; those per second of processor time, all threads together, hold beside other work
too. Each checkout computes in a process of its own; they take turns, repeat by repeat.
Encoding includes its verification; programs are compiled before. Twenty seconds a
repeat on two cores.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from emnist_jax.cli.arguments import count
from emnist_jax.cli.command import run_command
from emnist_jax.cli.errors import UserError
from emnist_jax.storage import files, paths
from experiments import study

WORKER = """
import json, sys, time
import numpy as np
from emnist_jax import codec
images, model = np.load(sys.argv[1]), sys.argv[2]
codec.decompress(codec.compress(images[: -(-len(images) // 4)], model=model))
print("ready", flush=True)
for _ in sys.stdin:
    measured = {}
    for name, function, argument, options in (
        ("encode", codec.compress, images, {"model": model}),
        ("decode", codec.decompress, None, {}),
    ):
        argument = content if argument is None else argument
        clock, used = time.perf_counter(), time.process_time()
        found = function(argument, **options)
        used, clock = time.process_time() - used, time.perf_counter() - clock
        content = found if name == "encode" else content
        measured[f"{name}_images_per_second"] = len(images) / clock
        measured[f"{name}_images_per_cpu_second"] = len(images) / used
    assert np.array_equal(found, images), "pixels differ"
    print(json.dumps({"bytes": len(content), **measured}), flush=True)
"""


@contextlib.contextmanager
def worker(checkout: pathlib.Path, images: str, model: str) -> Iterator[Callable]:
    """A process that computes with the package in a checkout.

    Args:
      checkout: a folder that holds `emnist_jax`.
      images: file of uint8 [N, 28, 28, 1].
      model: name or file of a pixel model.

    Yields:
      A function without arguments that measures one repeat.
    """
    command = [sys.executable, "-c", WORKER, images, model]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    env = os.environ | {"PYTHONPATH": str(checkout)}
    with subprocess.Popen(command, cwd=checkout, env=env, **pipes) as process:

        def line() -> str:
            answer = process.stdout.readline()
            if not answer:
                raise UserError(f"--against={checkout}: its codec failed, see above")
            return answer

        def measure() -> dict:
            process.stdin.write("\n")
            process.stdin.flush()
            return json.loads(line())

        line()
        yield measure
        process.stdin.close()


def summary(repeats: list[dict]) -> dict:
    """Median, lowest and highest of each speed."""
    columns = {
        name: [repeat[name] for repeat in repeats if name in repeat]
        for name in repeats[-1]
        if name != "bytes"
    }
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
    add("--images", type=count, help="the first so many test images (default: all)")
    add("--repeats", type=count, default=1, help="to add")
    add("--against", action="append", default=[], help="another checkout; repeatable")
    add("--out", required=True, help="a .json file")
    flags = parser.parse_args(argv)
    paths.check_output(flags.out, flags.emnist_archive, flags.model, flag="--out=")
    for folder in flags.against:
        if not os.path.isdir(os.path.join(folder, "emnist_jax")):
            raise UserError(f"--against={folder}: no checkout, it lacks emnist_jax/")
    dataset = study.load_dataset(flags)
    images, path = dataset.test.images[: flags.images], pathlib.Path(flags.out)
    about = {"source": dataset.source, "images": len(images)}
    results = study.resume(path, about, "models")
    if os.path.isfile(flags.model):
        flags.model = os.path.abspath(flags.model)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        given = os.path.join(folder, "images.npy")
        np.save(given, images)
        workers = {}
        for checkout in (study.ROOT, *map(pathlib.Path, flags.against)):
            name = flags.model
            if checkout != study.ROOT:
                name = f"{name}, {checkout.resolve().name}"
            workers[name] = stack.enter_context(
                worker(checkout.resolve(), given, flags.model)
            )
        for _ in range(flags.repeats):
            for name, measure in workers.items():
                repeats = results["models"].get(name, {}).get("repeats", [])
                repeats.append(measure())
                results["models"][name] = {**summary(repeats), "repeats": repeats}
            files.write_json(path, results)


if __name__ == "__main__":
    run_command(main)
