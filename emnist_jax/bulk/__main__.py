"""Encodes, decodes, compresses or decompresses many files of images.

  emnist-jax bulk encode --run=RUN --images='shards/*.npy' --out=LATENTS
  emnist-jax bulk decode --run=RUN --images='LATENTS/*.npy' --out=IMAGES
  emnist-jax bulk compress --images='shards/*.parquet' --out=COMPRESSED
  emnist-jax bulk decompress --images='gs://bucket/*.ejx' --out=gs://bucket/images

The folder gets a file a shard, its rows in the same order, and index.json when all are
there. The same command again does what is missing, what has a changed source and what
is damaged. With --address the machines of a Ray cluster share the work (extra [ray]);
the bytes are the same.
"""

import argparse
import os
import pathlib
import time
from collections.abc import Iterable, Iterator, Sequence

from emnist_jax.bulk import engine, index, places, shards
from emnist_jax.bulk.index import Job
from emnist_jax.cli import console
from emnist_jax.cli.arguments import (
    Parser,
    comma_separated,
    count,
    reading_flags,
    reading_options,
)
from emnist_jax.cli.command import run_command
from emnist_jax.cli.errors import UserError
from emnist_jax.codec.folder import load_zarr
from emnist_jax.storage import files

COMMANDS = {
    "encode": "Images to latents: float32 .npy [N, latent_dim].",
    "decode": "Latents to images: uint8 .npy [N, H, W, 1].",
    "compress": "Images to compressed files, .ejx, or zarr arrays.",
    "decompress": "Compressed files and arrays to images: uint8 .npy.",
}
EVERY = 60.0  # seconds between lines where no bar can be seen


def run(
    job: Job, globs: list[str], address: str | None = None, cores: int = 1
) -> dict[str, int]:
    """Does what is missing of a job.

    Args:
      job: what is to be done.
      globs: files to read.
      address: of a Ray cluster; None for this process alone.
      cores: CPU cores of one actor there.

    Returns:
      How many shards and rows there are, and how many shards were done for which
      reason (`shards.Outcome`).

    Raises:
      UserError: the call is wrong, or shards failed; the others are done then.
    """
    sources = places.find(globs)
    names = shards.shard_names(job, list(sources))
    records = index.begin(job)
    tasks = [
        shards.Task(job, source, name, records.get(name))
        for source, name in zip(sources, names, strict=True)
    ]
    outcomes = engine.on_ray(tasks, address, cores) if address else engine.here(tasks)
    done, failed, said = dict.fromkeys(("new", ""), 0), {}, set()
    for outcome in _shown(outcomes, sources, job.command):
        if "error" in outcome:
            failed[outcome["shard"]] = outcome["error"]
            continue
        record, why = outcome["record"], outcome["done"]
        records[record["shard"]] = record
        done[why] = done.get(why, 0) + 1
        if why not in ("", "new"):
            console.warn(f"{record['shard']}: {why}; it has been done again")
        _say_once(outcome["notices"], record["source"]["path"], said)
    if failed:
        shard = min(failed)
        raise UserError(
            f"{len(failed)} of {len(tasks)} shards failed, the others are done: "
            f"{shard}: {failed[shard]}"
        )
    index.finish(job, records.values())
    if not places.is_remote(job.out):
        files.remove_leftovers(pathlib.Path(job.out))
    rows = sum(record["rows"] for record in records.values())
    return {"shards": len(records), "rows": rows, **done}


def _shown(
    outcomes: Iterable[dict], sources: dict[str, int], what: str
) -> Iterator[dict]:
    """The outcomes, counted on a bar; without a terminal by a line now and then."""
    started = said = time.monotonic()
    images = finished = 0
    total = sum(sources.values())
    with console.bar(total, what, "B", unit_scale=True) as bar:
        for finished, outcome in enumerate(outcomes, 1):
            yield outcome
            record = outcome.get("record")
            seconds = time.monotonic() - started
            images += record["rows"] if record and outcome["done"] else 0
            of = f"{finished:,} of {len(sources):,} shards"
            rate = f"{images / seconds:,.0f} images/s"
            bar.set_postfix_str(f"{of}, {rate}", refresh=False)
            bar.update(record["source"]["bytes"] if record else 0)
            if bar.disable and time.monotonic() - said > EVERY:
                said = time.monotonic()
                left = seconds / finished * (len(sources) - finished)
                left = console.format_duration(left)
                console.say(f"{what}: {of}, {rate}, {left} left")


def _say_once(notices: str, source: str, said: set[str]) -> None:
    """Passes on what the reader says of a shard, of each kind the first."""
    for line in notices.splitlines():
        kind = line.replace(source, "")
        if kind not in said:
            said.add(kind)
            console.warn(line.removeprefix("warning: "))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags of a call; None for those of this process."""
    parser = Parser(__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, what in COMMANDS.items():
        command = commands.add_parser(name, help=what, description=what)
        command.set_defaults(command=name)
        add = command.add_argument
        autoencoder = name in ("encode", "decode")
        add("--run", required=autoencoder, help="the autoencoder's run folder")
        add(
            "--images",
            required=True,
            type=comma_separated(),
            help="files to read: globs, separated by commas; local or gs://, s3://",
        )
        add("--out", required=True, help="the folder to write, local or gs://, s3://")
        add("--address", help="of a Ray cluster: auto, HOST:PORT or local")
        add("--cores", type=count, default=1, help="CPU cores an actor has there")
        if name == "compress":
            add("--form", choices=("zarr",), help="arrays in place of files")
            add("--mode", default="lossless", help="as of codec compress")
            add("--max_error", type=int, default=0, help="largest pixel error")
            add("--mse", type=float, help="lossy, latent: error to reach in each shard")
            help = "lossy, latent: bytes an image to reach instead"
            add("--bytes", type=float, dest="bytes_per_image", help=help)
            add("--bits", type=int, help="latent: how fine they are cut, 1 to 8")
        if name.endswith("compress"):
            add("--model", help="pixel model, as of codec")
        if name in ("encode", "compress"):
            reading_flags(add)
    return parser.parse_args(argv)


def job_of(flags: argparse.Namespace) -> Job:
    """The job that the flags ask for."""
    coding = {
        name: getattr(flags, name)
        for name in ("mode", "max_error", "mse", "bytes_per_image", "bits", "model")
        if hasattr(flags, name)
    }
    if coding.get("model") and os.path.exists(coding["model"]):
        coding["model"] = places.absolute(coding["model"])
    run_path = flags.run
    if run_path and not run_path.startswith("pretrained/"):
        run_path = places.absolute(run_path)
    weights = shards.weights(flags.command, run_path, coding)
    out, reading = places.absolute(flags.out), reading_options(flags)
    form = getattr(flags, "form", None)
    if form and coding["mode"] in ("latent", "lossy"):
        raise UserError(
            f"mode={coding['mode']}: zarr arrays keep pixels within a bound"
        )
    if form:
        load_zarr(out)  # raises before any work if there is none
    return Job(flags.command, out, run_path, coding, reading, weights, form)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command of the module's docstring."""
    flags = parse(argv)
    started = time.monotonic()
    try:
        job = job_of(flags)
    except UserError as error:
        flag = hasattr(flags, str(error).partition("=")[0])
        raise UserError(f"--{error}" if flag else str(error)) from error
    found = run(job, flags.images, flags.address, flags.cores)
    seconds = time.monotonic() - started
    again = sum(
        v for k, v in found.items() if k in ("source changed", "output damaged")
    )
    print(
        f"{flags.out}: {found['shards']:,} shards, {found['rows']:,} images; "
        f"{found['new'] + again:,} done now, {found['']:,} were there; "
        f"{console.format_duration(seconds)}"
    )


if __name__ == "__main__":
    run_command(main)
