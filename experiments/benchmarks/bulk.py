"""What a cluster adds to bulk jobs: overhead a shard, images a second by workers.

  pip install -e '.[ray]' && python -m experiments.benchmarks.bulk --output=bulk.json

Shards of random glyphs are compressed, and encoded where --run is given, by one process
on all cores, and by Ray with one and with two actors of a core each. Rates are those
between the first shard's end and the last one's, so that starting does not count; it is
told beside. Overhead a shard is what one with a single image takes. Images per second
of processor time hold beside other work too.
"""

import contextlib
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from emnist_jax.bulk import __main__ as bulk
from emnist_jax.bulk import engine, index, shards
from emnist_jax.cli.arguments import count
from emnist_jax.cli.command import run_command
from emnist_jax.cli.errors import UserError
from emnist_jax.data import datasets
from emnist_jax.storage import files, paths, results
from experiments import study, tables

WORKERS = (1, 2, 0)  # actors of a core; 0, one process: last, JAX bears no forks


@contextlib.contextmanager
def cluster(workers: int) -> Iterator[str | None]:
    """The address of a Ray cluster with so many cores; None for no worker."""
    if not workers:
        yield None
        return
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # on a busy machine
    try:
        from ray.cluster_utils import Cluster
    except ImportError as error:
        raise UserError("needs Ray: pip install -e '.[ray]'") from error
    node = {"num_cpus": workers, "object_store_memory": 10**8}
    made = Cluster(initialize_head=True, head_node_args=node)
    try:
        yield made.address
    finally:
        made.shutdown()


def measure(job: index.Job, sources: Iterable[str], address: str | None) -> dict:
    """Seconds of a job: until its first shard is done, and for each one after it."""
    sources = list(sources)
    index.begin(job)
    tasks = [
        shards.Task(job, source, name)
        for source, name in zip(sources, shards.shard_names(job, sources), strict=True)
    ]
    started = time.monotonic()
    outcomes = engine.on_ray(tasks, address, 1) if address else engine.here(tasks)
    ends, images, seconds = [], [], []
    for outcome in outcomes:
        if "error" in outcome:
            raise UserError(outcome["error"])
        ends.append(time.monotonic())
        images.append(outcome["record"]["rows"])
        seconds.append(outcome["seconds"])
    last = slice(len(ends) // 2, None)  # every actor has compiled by then
    return {
        "first_seconds": ends[0] - started,
        "seconds_per_shard": (ends[-1] - ends[0]) / (len(ends) - 1),
        "images_per_second": sum(images[1:]) / (ends[-1] - ends[0]),
        "images_per_cpu_second": sum(images[last]) / sum(seconds[last]),
    }


def write_shards(folder: pathlib.Path, number: int, rows: int) -> list[str]:
    """Files of glyphs, drawn with replacement."""
    images = datasets.load("glyphs").train.images
    generator = np.random.default_rng(0)
    names = []
    for shard in range(number):
        path = folder / f"{rows}-images-{shard:05}.npy"
        np.save(path, images[generator.integers(0, len(images), rows)])
        names.append(str(path))
    return names


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command of the module's docstring."""
    parser = study.StudyParser(__doc__)
    add = parser.add_argument
    add("--shards", type=count, default=12, help="files with many images")
    add("--rows", type=count, default=2000, help="images in each")
    add("--run", help="the autoencoder, to encode as well")
    add("--repeats", type=count, default=3, help="how often; medians are told")
    add("--output", help="JSON file to write")
    flags = parser.parse_args(argv)
    if flags.shards < 2:
        raise UserError(f"--shards={flags.shards}: the first is not timed; give more")
    if flags.output:
        paths.check_output(flags.output, flag="--output=")
    calls = {"compress": []} | ({"encode": [f"--run={flags.run}"]} if flags.run else {})
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        sources = write_shards(folder, flags.shards, flags.rows)
        small = write_shards(folder, 4 * flags.shards, 1)
        for command, more in calls.items():
            for workers in WORKERS:
                row = {"command": command, "workers": workers}
                with cluster(workers) as address:
                    for kind, some in (("", sources), ("small_", small)):
                        call = [command, *more]
                        found = _medians(call, some, address, flags.repeats)
                        row |= {kind + key: value for key, value in found.items()}
                rows.append(row)
                print(f"{command}, {workers} workers: measured", flush=True)
    headings = "command | workers | images/s | images/processor second | "
    headings += "s until the first shard | ms a shard of 1 | of them processor"
    print(tables.markdown(headings, map(_cells, rows)))
    if flags.output:
        record = {"environment": results.environment(), "images": flags.rows}
        files.write_json(flags.output, {**record, "rows": rows})


def _medians(
    call: list[str], sources: list[str], address: str | None, repeats: int
) -> dict[str, float]:
    """Of what `measure` finds, each time in a new folder."""
    found = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as out:
            flags = bulk.parse([*call, "--images=x", f"--out={out}/out"])
            found.append(measure(bulk.job_of(flags), sources, address))
    return {key: statistics.median(one[key] for one in found) for key in found[0]}


def _cells(row: dict) -> tuple[str, ...]:
    workers = f"{row['workers']} actors" if row["workers"] else "one process"
    return (
        row["command"],
        workers,
        f"{row['images_per_second']:,.0f}",
        f"{row['images_per_cpu_second']:,.0f}",
        f"{row['first_seconds']:.1f}",
        f"{1000 * row['small_seconds_per_shard']:.0f}",
        f"{1000 / row['small_images_per_cpu_second']:.0f}",
    )


if __name__ == "__main__":
    run_command(main)
