"""Everything that is to be measured where a GPU or a TPU is, in one command.

  pip install -e '.[cuda,test]' torch      # or '.[tpu,test]'
  python -m experiments.benchmarks.device --output=device.json

Images a second of training, encoding and decoding for every decoder in both computing
types, beside plain flax.linen, and PyTorch where CUDA is; short trainings, whose errors
tell what its products do; the codec's networks in JAX there against its machine
code on the CPU, byte for byte; the golden files, and the tests that concern devices. A
.md with the tables goes along. Each part is a process of its own, one after another, as
a TPU belongs to one process. A part that fails is told and stops no other.

Tried on a CPU only.
"""

import argparse
import functools
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence

from emnist_jax.cli.arguments import comma_separated, count
from emnist_jax.cli.command import run_command
from emnist_jax.cli.errors import UserError
from emnist_jax.models.registry import DECODERS
from emnist_jax.storage import files, results
from experiments import study, tables
from experiments.benchmarks.peers.protocol import MEASURES, Worker
from experiments.benchmarks.throughput import FRAMEWORKS, installed, write_batch

DTYPES = ("float32", "bfloat16")
TESTS = ("layers", "models", "parallel", "codec_exactness", "codec_files", "export")
PLAIN = {"EMNIST_JAX_CPU_LAYERS": "0"}  # JAX alone, as on an accelerator
FACTS = """
import json
from emnist_jax.storage import results
print(json.dumps(results.environment()))
"""
CODEC = """
import hashlib, json, os, sys, time
from emnist_jax import codec
from emnist_jax.data import datasets
images = datasets.load("glyphs").train.images[: int(sys.argv[1]), ..., 0]
found = {}
for where, wanted in (("device", "0"), ("cpu", "1")):
    os.environ["EMNIST_JAX_CPU_LAYERS"] = wanted
    codec.decompress(codec.compress(images))  # compiles
    started = time.perf_counter()
    content = codec.compress(images)
    between = time.perf_counter()
    again = codec.decompress(content)
    assert (again == images).all()
    found[where] = {
        "compress_images_per_second": len(images) / (between - started),
        "decompress_images_per_second": len(images) / (time.perf_counter() - between),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
assert found["device"]["sha256"] == found["cpu"]["sha256"], found
print(json.dumps(found))
"""


def process(*command: str, **environment: str) -> str:
    """What a process prints.

    Raises:
      UserError: it ended with an error, whose end it quotes.
      subprocess.TimeoutExpired: it takes more than half an hour.
    """
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=study.ROOT,
        env=os.environ | environment,
        timeout=1800,  # the machine is lent
    )
    if done.returncode:
        said = (done.stdout + done.stderr).strip()[-2000:]
        raise UserError(f"ended with status {done.returncode}: {said}")
    return done.stdout


def rates(name: str, build: dict[str, str], flags: argparse.Namespace) -> dict:
    """Images a second of each measure, medians, in a process of its own.

    Args:
      name: a key of `FRAMEWORKS`.
      build: what the worker builds: decoder, dtype, images and latents.
      flags: of the command: batch_size, repeats and seconds.
    """
    environment = PLAIN if name == "flax" else {}
    found = {}
    module = f"experiments.benchmarks.peers.{FRAMEWORKS[name][0]}"
    with Worker(module, environment) as worker:
        compiling = worker.ask("build", **build)
        for what in MEASURES:
            once = worker.ask("run", measure=what, count=2) / 2
            calls = max(1, math.ceil(flags.seconds / once))
            taken = [
                worker.ask("run", measure=what, count=calls) / calls
                for _ in range(flags.repeats)
            ]
            found[what] = flags.batch_size / statistics.median(taken)
            found[f"{what}_compile_seconds"] = compiling[what]
    return found


def trained(decoder: str, dtype: str, flags: argparse.Namespace) -> dict:
    """A short training by `launch.py`: its error on test images, and its rate."""
    examples = [] if flags.examples is None else [f"--train_examples={flags.examples}"]
    with tempfile.TemporaryDirectory() as folder:
        settings = (f"--decoder={decoder}", f"--compute_dtype={dtype}", *examples)
        where = ("--dataset=glyphs", f"--workdir={folder}", "--run_name=run")
        process("launch.py", *settings, *where, f"--epochs={flags.epochs}")
        record = results.load_results(pathlib.Path(folder) / "run")
    rate = record["timing"]["training_images_per_second"]
    return {"mse": record["test"]["autoencoder"]["mse"], "images_per_second": rate}


def tested(name: str, platform: str) -> dict:
    """How the tests of a file end on the device, at full precision of products."""
    platforms = {"gpu": "cuda,cpu", "tpu": "tpu,cpu"}.get(platform, "cpu")
    environment = {
        "TEST_PLATFORMS": platforms,
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
    }
    if name == "codec_files":  # the golden ones, by JAX
        environment |= PLAIN
    call = ["-m", "pytest", f"tests/test_{name}.py", "-p", "no:cacheprovider"]
    return {"ended": process(*call, **environment).splitlines()[-1]}


def parts(
    flags: argparse.Namespace, platform: str, batch: dict[str, str]
) -> Iterator[tuple[str, Callable[[], dict]]]:
    """Every part by name, to be called in this order."""
    frameworks = ["emnist_jax", "flax"]
    if installed("torch") and platform in ("gpu", "cpu"):
        frameworks.append("pytorch")
    for decoder in flags.decoders:
        for dtype in flags.dtypes:
            for name in frameworks:
                build = {"decoder": decoder, "dtype": dtype, **batch}
                key = f"rates, {decoder}, {dtype}, {name}"
                yield key, functools.partial(rates, name, build, flags)
            key = f"training, {decoder}, {dtype}"
            yield key, functools.partial(trained, decoder, dtype, flags)
    images = str(flags.images)
    yield "codec", lambda: json.loads(process("-c", CODEC, images).splitlines()[-1])
    for name in flags.tests:
        yield f"tests, {name}", functools.partial(tested, name, platform)


def format_markdown(record: dict) -> str:
    """The results as Markdown."""
    about, rows = record["environment"], {"rates": [], "training": [], "others": []}
    for key, found in record["parts"].items():
        kind, *names = key.split(", ")
        if "error" in found:
            cells = [key, f"failed: {tables.plain(found['error'][-200:])}"]
            rows["others"].append(cells)
        elif kind == "rates":
            rates = [f"{found[what]:,.0f}" for what in MEASURES]
            rows[kind].append([*names, *rates])
        elif kind == "training":
            rate = f"{found['images_per_second']:,.0f}"
            rows[kind].append([*names, f"{found['mse']:.5f}", rate])
        else:
            rows["others"].append([key, tables.plain(json.dumps(found))])
    headings = {
        "rates": "decoder | type | framework | train | encode | decode",
        "training": "decoder | type | test MSE | images/s",
        "others": "part | result",
    }
    head = (
        f"{about['devices']} x {about['device']} ({about['platform']}), JAX "
        f"{about['jax']}; images a second, {record['batch_size']} a step"
    )
    shown = [tables.markdown(headings[kind], rows[kind]) for kind in rows if rows[kind]]
    return "\n".join([f"{head}\n", *shown])


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command of the module's docstring."""
    parser = study.StudyParser(__doc__)
    add = parser.add_argument
    for name, known in (("decoders", DECODERS), ("dtypes", DTYPES)):
        kind = comma_separated(known=known)
        add(f"--{name}", type=kind, default=list(known), help="comma-separated")
    help = "files in tests/, without test_ and .py"
    add("--tests", type=comma_separated(), default=list(TESTS), help=help)
    add("--batch_size", type=count, default=1024, help="images a step, all devices")
    add("--repeats", type=count, default=5, help="measurements of each figure")
    add("--seconds", type=float, default=1.0, help="that one takes at least")
    add("--epochs", type=count, default=5, help="of each training on glyphs")
    add("--examples", type=count, help="of them, a subset")
    add("--images", type=count, default=2000, help="to compress")
    add("--output", default="device.json", help="a .json file; a .md goes along")
    flags = parser.parse_args(argv)
    output = study.check_output(flags.output, flag="--output=")
    environment = json.loads(process("-c", FACTS).splitlines()[-1])
    record = {"environment": environment, "batch_size": flags.batch_size, "parts": {}}
    with tempfile.TemporaryDirectory() as folder:
        batch = write_batch(pathlib.Path(folder), flags.batch_size)
        for key, part in parts(flags, environment["platform"], batch):
            print(key, flush=True)
            try:
                record["parts"][key] = part()
            except (UserError, RuntimeError, subprocess.TimeoutExpired) as error:
                record["parts"][key] = {"error": str(error)}
            files.write_json(output, record)  # what there is, should it be cut off
    study.write(output.with_suffix(""), record, format_markdown(record))


if __name__ == "__main__":
    run_command(main)
