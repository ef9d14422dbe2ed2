"""Images a second of training, encoding and decoding, beside the same in its peers.

  python -m experiments.benchmarks.throughput --output=throughput.json

Ours is the real train step. The peers are plain flax.linen modules, PyTorch
(channels_last) and Keras 3 on TensorFlow (`pip install -e .[peers]`; those not
installed are named as absent). Each runs in a process of its own on the CPU, on the
same batch; the repeats of all are interleaved, so that what disturbs the machine
disturbs all. Beside each figure stands its share of the machine's limit: the
multiply-adds of the architecture, counted as direct convolutions (training three
times those forward), over those of a large float32 matrix product in the same run.
Winograd's convolutions need fewer, so a share may pass 100%.

It takes about four minutes on two cores.
"""

import importlib.util
import math
import os
import pathlib
import platform
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np

from emnist_jax.cli.arguments import Parser, comma_separated, count
from emnist_jax.cli.command import run_command
from emnist_jax.cli.errors import UserError
from emnist_jax.models.autoencoder import Autoencoder
from emnist_jax.models.registry import DECODERS
from emnist_jax.models.table import layer_table, total
from emnist_jax.storage import files, paths
from experiments.benchmarks.peers.protocol import MEASURES, Worker

# Name, module and the packages it needs.
FRAMEWORKS = {
    "emnist_jax": ("ours", ()),
    "flax": ("plain_flax", ()),
    "pytorch": ("pytorch", ("torch",)),
    "keras": ("keras_tensorflow", ("keras", "tensorflow")),
}


def measure(
    decoders: list[str],
    frameworks: list[str],
    batch_size: int,
    repeats: int,
    seconds: float,
) -> dict:
    """Runs the benchmark.

    Args:
      decoders: names of `DECODERS`.
      frameworks: keys of `FRAMEWORKS`; 'emnist_jax' must be one.
      batch_size: images a step.
      repeats: measurements of each figure.
      seconds: that a measurement takes at least, about.

    Returns:
      What is stored: settings, hardware, versions, absent peers, the machine's limit
      in multiply-adds a second, and a row a figure.
    """
    needed = {name: FRAMEWORKS[name][1] for name in frameworks}
    absent = [n for n, packages in needed.items() if not all(map(installed, packages))]
    present = [n for n in frameworks if n not in absent]
    rows, limits = [], []
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        batch = write_batch(pathlib.Path(folder), batch_size)
        workers = {name: stack.enter_context(_start(name)) for name in present}
        for decoder in decoders:
            rows += _rows(
                decoder, workers, batch, limits, (batch_size, repeats, seconds)
            )
        versions = {name: worker.versions for name, worker in workers.items()}
    limit = statistics.median(limits)
    for row in rows:
        work = row["images_per_second"] * row["multiply_adds_per_image"]
        row["share_of_limit"] = work / limit
    return {
        "batch_size": batch_size,
        "repeats": repeats,
        "hardware": hardware(),
        "versions": {"python": platform.python_version(), **versions},
        "absent": absent,
        "limit_multiply_adds_per_second": limit,
        "rows": rows,
    }


def _rows(decoder: str, workers: dict, batch: dict, limits: list, plan) -> list[dict]:
    """A decoder's rows, the repeats interleaved; `limits` gets the machine's."""
    batch_size, repeats, seconds = plan
    compile_seconds, counts, rows = {}, {}, []
    for name, worker in workers.items():
        first = worker.ask("build", decoder=decoder, **batch)
        for what in MEASURES:
            compile_seconds[name, what] = first[what]
            once = worker.ask("run", measure=what, count=2) / 2
            counts[name, what] = max(1, math.ceil(seconds / once))
    times = {key: [] for key in counts}
    for _ in range(repeats):
        limits.append(workers["emnist_jax"].ask("matrix_product"))
        for what in MEASURES:
            for name, worker in workers.items():
                count = counts[name, what]
                taken = worker.ask("run", measure=what, count=count)
                times[name, what].append(taken / count)
    for (name, what), values in times.items():
        rates = sorted(batch_size / value for value in values)
        rows.append(
            {
                "decoder": decoder,
                "measure": what,
                "framework": name,
                "images_per_second": statistics.median(rates),
                "lowest": rates[0],
                "highest": rates[-1],
                "compile_seconds": compile_seconds[name, what],
                "multiply_adds_per_image": multiply_adds(decoder, what),
            }
        )
    return rows


def multiply_adds(decoder: str, what: str) -> int:
    """Multiply-adds an image of 'train', 'encode' or 'decode'.

    Training is counted as three times forward: the gradients of inputs and of
    kernels are as much work again each.
    """
    table = layer_table(Autoencoder(decoder))
    part = {"encode": "encoder", "decode": "decoder", "train": None}[what]
    return total(table, "multiply_adds", part) * (3 if what == "train" else 1)


def hardware() -> dict:
    """The processor's name and how many cores this process may use."""
    name = platform.processor() or platform.machine()
    information = pathlib.Path("/proc/cpuinfo")
    if information.exists():
        lines = [line.split(":", 1) for line in information.read_text().splitlines()]
        fields = {line[0].strip(): line[1].strip() for line in lines if len(line) == 2}
        name = fields.get("model name", name)
        if "cpu family" in fields:  # clouds hide the name, but not these
            name += f" (family {fields['cpu family']}, model {fields['model']})"
    return {"processor": name, "cores": _cores()}


def format_table(results: dict) -> str:
    """The results as text."""
    machine = results["hardware"]
    limit = results["limit_multiply_adds_per_second"] / 1e9
    lines = [
        f"{machine['processor']}, {machine['cores']} cores; batch "
        f"{results['batch_size']}, median of {results['repeats']} (lowest to highest)",
        f"limit: {limit:.0f} G multiply-adds/s in a float32 matrix product",
    ]
    for name, versions in results["versions"].items():
        if isinstance(versions, dict):
            listed = ", ".join(f"{k} {v}" for k, v in versions.items())
            lines.append(f"{name}: {listed}")
    lines += [f"{name}: absent, not installed" for name in results["absent"]]
    lines.append(
        f"\n{'decoder':<9}{'measure':<9}{'framework':<12}{'images/s':>9}"
        f"{'spread':>16}{'of limit':>10}{'ours is':>9}{'compile s':>11}"
    )
    ours = {
        (row["decoder"], row["measure"]): row["images_per_second"]
        for row in results["rows"]
        if row["framework"] == "emnist_jax"
    }
    for row in results["rows"]:
        times = ours[row["decoder"], row["measure"]] / row["images_per_second"]
        spread = f"{row['lowest']:,.0f}-{row['highest']:,.0f}"
        lines.append(
            f"{row['decoder']:<9}{row['measure']:<9}{row['framework']:<12}"
            f"{row['images_per_second']:>9,.0f}{spread:>16}"
            f"{row['share_of_limit']:>10.0%}{times:>8.2f}x"
            f"{row['compile_seconds']:>11.1f}"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command of the module's docstring."""
    parser = Parser(__doc__)
    add = parser.add_argument
    for name, known in (("decoders", DECODERS), ("frameworks", FRAMEWORKS)):
        kind = comma_separated(known=known)
        add(f"--{name}", type=kind, default=list(known), help="comma-separated")
    add("--batch_size", type=count, default=128, help="images a step")
    add("--repeats", type=count, default=7, help="measurements of each figure")
    help = "that one measurement takes at least"
    add("--seconds", type=float, default=0.5, help=help)
    add("--output", help="where to store the figures, .json")
    flags = parser.parse_args(argv)
    if flags.output:
        paths.check_output(flags.output, flag="--output=")
    if "emnist_jax" not in flags.frameworks:
        chosen = ",".join(flags.frameworks)
        raise UserError(f"--frameworks={chosen}: must include emnist_jax")
    if flags.seconds <= 0:
        raise UserError(f"--seconds={flags.seconds}: must be above 0")
    settings = (flags.decoders, flags.frameworks, flags.batch_size, flags.repeats)
    results = measure(*settings, flags.seconds)
    print(format_table(results))
    if flags.output:
        files.write_json(flags.output, results)


def _start(name: str) -> Worker:
    environment = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    if name == "flax":
        environment["EMNIST_JAX_CPU_LAYERS"] = "0"  # nor its settings of the process
    return Worker(f"experiments.benchmarks.peers.{FRAMEWORKS[name][0]}", environment)


def write_batch(folder: pathlib.Path, batch_size: int) -> dict[str, str]:
    """Random images and latents as files; their paths by name."""
    generator = np.random.default_rng(0)
    arrays = {
        "images": generator.integers(0, 256, (batch_size, 28, 28, 1), np.uint8),
        "latents": generator.standard_normal((batch_size, 32), np.float32),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return {name: str(folder / f"{name}.npy") for name in arrays}


def installed(package: str) -> bool:
    """Whether a package is installed."""
    return importlib.util.find_spec(package) is not None


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


if __name__ == "__main__":
    run_command(main)
