"""What a run costs: start-up, and memory and time as the data grows.

  python -m experiments.benchmarks.cost --output=cost.json
  python -m experiments.benchmarks.cost --sizes=10000,40000,112800 \
      --dataset=emnist/balanced --emnist_archive=gzip.zip

Start-up is timed from the command to the first training step on disk, with an empty
compilation cache and with a filled one. Each size is one epoch of `launch.py`, with
export and evaluation, in a process of its own; memory is that process' peak.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from emnist_jax.cli.arguments import comma_separated, count
from emnist_jax.cli.command import run_command
from emnist_jax.cli.errors import UserError
from emnist_jax.storage import files, paths, results
from experiments import study


def time_help(repeats: int) -> list[float]:
    """Seconds of `python launch.py --help`."""
    seconds = []
    for _ in range(repeats):
        started = time.monotonic()
        subprocess.run(
            [sys.executable, study.ROOT / "launch.py", "--help"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        seconds.append(time.monotonic() - started)
    return seconds


def time_first_step(workdir: pathlib.Path, cache: pathlib.Path, name: str) -> float:
    """Seconds from the command until the first step's checkpoint is on disk."""
    flags = ["--dataset=glyphs", "--checkpoint_minutes=0", f"--run_name={name}"]
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, study.ROOT / "launch.py", f"--workdir={workdir}", *flags],
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)},
        stdout=subprocess.DEVNULL,
    )
    try:
        first = workdir / name / "checkpoints" / "step-00000001"
        while not first.exists():
            if process.poll() is not None:
                raise UserError(f"launch.py ended with status {process.returncode}")
            time.sleep(0.01)
        return time.monotonic() - started
    finally:
        process.kill()
        process.wait()


def measure_size(workdir: pathlib.Path, size: int, settings: list[str]) -> dict:
    """Peak memory and times of one epoch of `size` training images."""
    name = f"size{size}"
    flags = [f"--train_examples={size}", "--epochs=1", f"--run_name={name}"]
    command = [sys.executable, study.ROOT / "launch.py", f"--workdir={workdir}"]
    process = subprocess.Popen([*command, *flags, *settings], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UserError(f"launch.py ended with status {process.returncode}; see above")
    timing = results.load_results(workdir / name)["timing"]
    kibibytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return {"train_examples": size, "peak_mebibytes": kibibytes / 1024, **timing}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command of the module's docstring."""
    parser = study.StudyParser(__doc__)
    add, sizes = parser.add_argument, comma_separated(int)
    add("--sizes", type=sizes, default=[1000, 4000], help="training images")
    parser.add_data("glyphs")
    add("--repeats", type=count, default=3, help="how often to start")
    add("--output", help="JSON file to write")
    flags = parser.parse_args(argv)
    if flags.output:
        paths.check_output(flags.output, flag="--output=")
    settings = study.run_settings(flags)
    record: dict = {"environment": results.environment()}
    with tempfile.TemporaryDirectory() as folder:
        workdir = pathlib.Path(folder)
        record["help_seconds"] = time_help(flags.repeats)
        for kind in ("cold", "warm"):
            record[f"first_step_{kind}_seconds"] = [
                time_first_step(workdir, workdir / f"cache{i}", f"{kind}{i}")
                for i in range(flags.repeats)
            ]
        for name in ("help", "first_step_cold", "first_step_warm"):
            seconds = record[f"{name}_seconds"]
            spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
            print(f"{name:<18}{statistics.median(seconds):8.2f} s  ({spread})")
        record["sizes"] = []
        for size in flags.sizes:
            row = measure_size(workdir, size, settings)
            record["sizes"].append(row)
            print(
                f"{size:>8} images    peak {row['peak_mebibytes']:7.0f} MiB, training "
                f"{row['training_seconds']:7.1f} s, all {row['seconds']:7.1f} s",
                flush=True,
            )
    if flags.output:
        files.write_json(flags.output, record)


if __name__ == "__main__":
    run_command(main)
