"""One shard of a bulk job: `do_shard(task) -> Outcome`, the same wherever it runs."""

import contextlib
import dataclasses
import functools
import hashlib
import io
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from emnist_jax.bulk import index, places
from emnist_jax.bulk.index import Job
from emnist_jax.cli.errors import UserError

# What a shard's output is called by, and endings that its source loses for it.
ENDINGS = {"encode": ".npy", "decode": ".npy", "compress": ".ejx", "decompress": ".npy"}
FORMS = set(
    ".npy .npz .ejx .idx .gz .parquet .tar .tgz .zip .csv .mat .tif .zarr".split()
)


@dataclasses.dataclass(frozen=True)
class Task:
    """A shard to do.

    Attributes:
      job: what is done to all of them.
      source: the file to read.
      shard: the name of the output in the job's folder.
      record: what the job's index holds of it, None for nothing.
    """

    job: Job
    source: str
    shard: str
    record: dict[str, Any] | None = None


class Outcome(NamedTuple):
    """What has become of a task.

    Attributes:
      record: for the index: shard, rows, bytes, sha256, and path, bytes and sha256 of
        its source.
      done: why the shard has been done: 'new', 'source changed' or 'output damaged';
        '' if it was there.
      notices: what the reader of images had to say.
    """

    record: dict[str, Any]
    done: str
    notices: str = ""


def shard_names(job: Job, sources: Sequence[str]) -> list[str]:
    """The names of the outputs, one a source.

    Raises:
      UserError: two would be the same, or a source lies where outputs go.
    """
    named: dict[str, str] = {}
    ending = f".{job.form}" if job.form else ENDINGS[job.command]
    for source in sources:
        path = pathlib.PurePath(source)
        stem = path.stem if path.suffix.lower() in FORMS else path.name
        name = stem + ending
        if stem.startswith(".") or name in index.RESERVED:
            raise UserError(f"{source}: no output can be called {name}; rename it")
        if name in named:
            raise UserError(
                f"--images: {named[name]} and {source} would both become {name}; "
                "give them in two calls, with a folder each"
            )
        named[name] = source
        if _real(source).startswith(_real(job.out) + "/"):
            raise UserError(
                f"--out={job.out}: {source} lies there; choose another folder"
            )
    return list(named)


def _real(name: str) -> str:
    return name if places.is_remote(name) else os.path.realpath(name)


def do_shard(task: Task) -> Outcome:
    """Does what is missing of a shard, and nothing if its output is right.

    Source and output are compared with the shard's record by their digests. The
    output, and the record of which it is found to be ours, appear when complete.

    Raises:
      UserError: the source is wrong, or the output cannot be written or is not ours.
    """
    job, out = task.job, places.join(task.job.out, task.shard)
    with places.fetched(task.source) as path, _renamed(path, task.source):
        record = index.kept_record(job, task.shard) or task.record
        there = places.exists(out)
        if there and record is None:
            raise UserError(f"{out}: is not of this job; move it away")
        before = _stamp(path)
        source = {"path": task.source, **places.digest(path)}
        done = _missing(record, source, out if there else None)
        if record is not None and not done:
            return Outcome({**record, "source": source}, "")
        with places.placed(out, job.form == "zarr") as temporary:
            notices = io.StringIO()
            with contextlib.redirect_stderr(notices):
                rows = _COMMANDS[job.command](job, path, temporary)
            if _stamp(path) != before:
                raise UserError(f"{path}: has changed while it was read; call again")
            record = {"shard": task.shard, "rows": rows, **places.digest(temporary)}
            record["source"] = source
            index.keep_record(job, record)  # first: without one, a file is not ours
    return Outcome(record, done, notices.getvalue().replace(str(path), task.source))


def _stamp(path: pathlib.Path) -> list[tuple[int, int]]:
    """Sizes and times, which tell whether somebody is writing there."""
    try:
        found = [os.stat(part) for part in places.parts(path)]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    return [(about.st_size, about.st_mtime_ns) for about in found]


def _missing(record: dict | None, source: dict, out: str | None) -> str:
    """Why a shard is to be done; '' if it is not."""
    if record is None:
        return "new"
    if any(record["source"][key] != source[key] for key in ("bytes", "sha256")):
        return "source changed"
    if out is None:
        return "new"
    with places.fetched(out) as path:
        found = places.digest(path)
    right = all(record[key] == found[key] for key in ("bytes", "sha256"))
    return "" if right else "output damaged"


@contextlib.contextmanager
def _renamed(path: pathlib.Path, name: str):
    """Errors speak of the file by the name that the user knows."""
    try:
        yield
    except UserError as error:
        text = str(error).replace(str(path), name)
        raise UserError(text if name in text else f"{name}: {text}") from error


def weights(command: str, run: str | None, coding: dict[str, Any]) -> dict[str, str]:
    """Digests of all that is trained and enters the output.

    Args:
      command: what is done.
      run: the autoencoder's folder, or None.
      coding: options of the codec.

    Raises:
      UserError: the run or the model cannot be read, or the options are wrong.
    """
    found = {}
    if run is not None:
        from emnist_jax import load_run

        parts = {"encode": ["encoder"], "decode": ["decoder"]}
        path = load_run(run, flag="--run").path
        for part in parts.get(command, ["encoder", "decoder"]):
            found[part] = places.digest(path / part / "manifest.json")["sha256"]
    if command == "compress":
        from emnist_jax.codec import model_file
        from emnist_jax.codec.options import Options

        chosen = Options(**coding).checked()
        if chosen.mode == "latent" and run is None:
            raise UserError("mode=latent: needs --run, the trained autoencoder")
        if chosen.mode != "latent" and chosen.model is not None:  # lossy: by the error
            content = model_file.load(chosen.model)[2]
            found["model"] = hashlib.sha256(content).hexdigest()
    return found


@functools.lru_cache(1)  # one job a process: the model is loaded once
def _loaded(command: str, run: str | None, coding: tuple, digests: tuple) -> Any:
    """The run that a job needs, if its weights are those with which it began."""
    if weights(command, run, dict(coding)) != dict(digests):
        raise UserError(
            "weights differ between this machine and the one that started the job; "
            "give them the same run, model and version of the package"
        )
    if run is None:
        return None
    from emnist_jax import load_run

    return load_run(run, flag="--run")


def _run_of(job: Job) -> Any:
    coding, digests = (tuple(sorted(x.items())) for x in (job.coding, job.weights))
    return _loaded(job.command, job.run, coding, digests)


def _encode(job: Job, path: pathlib.Path, out: pathlib.Path) -> int:
    from emnist_jax.latents import convert

    return convert(_run_of(job), path, out, **job.reading)[0]


def _decode(job: Job, path: pathlib.Path, out: pathlib.Path) -> int:
    from emnist_jax.latents import convert

    return convert(_run_of(job), path, out, decode=True)[0]


def _compress(job: Job, path: pathlib.Path, out: pathlib.Path) -> int:
    from emnist_jax.codec import writer
    from emnist_jax.codec.folder import load_zarr
    from emnist_jax.codec.options import Options
    from emnist_jax.data import read_images

    run = _run_of(job)
    images = read_images(path, channel=True, **job.reading).images
    invert = job.reading.get("invert", False)
    options = {"invert": invert, "inverted": invert}
    if job.form == "zarr":
        chosen = Options(**job.coding).checked()
        options |= {"max_error": chosen.max_error, "model": chosen.model}
        load_zarr(out).write(out, images, **options)
        return len(images)
    options |= {**job.coding, "run": run, "name": str(path)}
    with open(out, "wb") as file:
        writer.write(file, images, **options)
    return len(images)


def _decompress(job: Job, path: pathlib.Path, out: pathlib.Path) -> int:
    import numpy as np

    from emnist_jax import codec
    from emnist_jax.storage.arrays import save_batches

    run, model = _run_of(job), job.coding.get("model")
    with codec.open(path, model=model, run=run) as images:
        save_batches(out, images.pieces(), images.shape, np.uint8)
        return len(images)


_COMMANDS: dict[str, Callable[[Job, pathlib.Path, pathlib.Path], int]] = {
    "encode": _encode,
    "decode": _decode,
    "compress": _compress,
    "decompress": _decompress,
}
