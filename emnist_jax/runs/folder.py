"""Run folders: what lies where, and who may write.

config.json            every setting in force and where the data came from
metrics.jsonl          the training log, a JSON object a line
results.json           see `results.py`
checkpoints/step-*     train state: the latest two and the best
encoder/ decoder/      parameters of each half, Orbax, loadable alone
latents/               {train,test}.npy, labels and source rows beside them
figures/               drawn by `plots.py` from the files above and figures/*.npz
"""

import contextlib
import fcntl
import json
import os
import pathlib
import platform
import time
from collections.abc import Iterator
from typing import Any

from emnist_jax.cli.errors import UserError
from emnist_jax.config import shaping_differences
from emnist_jax.devices import processes
from emnist_jax.models.registry import IMAGE_SIZE
from emnist_jax.runs.run import PARTS, Run, read_config
from emnist_jax.storage import checkpoints, files, paths

_LOCK = ".lock"
WRITTEN = (
    *(_LOCK, "config.json", "metrics.jsonl", "results.json", "encoder", "decoder"),
    *("checkpoints", "latents", "figures", "tensorboard", "profile"),
)


@contextlib.contextmanager
def open_for_training(
    path: pathlib.Path, settings: dict[str, Any], data_source: dict[str, Any]
) -> Iterator[Run]:
    """The run's folder, new or with the same settings, locked against other processes.

    Args:
      path: the folder.
      settings: the `Config` in force, as a dict.
      data_source: facts about the data that a resumed run must share.

    Raises:
      UserError: the folder cannot be made, belongs to other settings or is in use.
    """
    run = Run(path)
    ours = json.loads(json.dumps({"config": settings, "data": data_source}))
    if not processes.is_writer():
        yield run
        return
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        names = [path.name for path in run.path.iterdir() if path.name[0] != "."]
        if names and "config.json" not in names:
            raise UserError(
                f"{run.path} has no config.json but holds {min(names)}; choose "
                "another --run_name"
            )
        for name in WRITTEN:
            paths.inside(run.path, name)
        lock = open(run.path / _LOCK, "a", opener=paths.no_link)
    except OSError as error:
        raise UserError(
            f"--workdir={path.parent}: cannot write {error.filename}: "
            f"{error.strerror}; name a folder that can be written"
        ) from error
    with lock:
        try:  # the system frees the lock of a process that dies
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{run.path} is in use by another process; wait for it or choose "
                "another --run_name"
            ) from error
        if (run.path / "config.json").exists():
            _check_same(run.path, ours, read_config(run.path))
        else:
            files.write_json(run.path / "config.json", ours)
        files.remove_leftovers(run.path)
        if processes.several():  # by this they know that they see one folder
            lock.truncate(0)
            lock.write(f"{platform.node()} {os.getpid()} {time.time_ns()}\n")
            lock.flush()
            os.fsync(lock.fileno())  # on network drives an open file is seen later
        yield run


def expect_shared(run: Run) -> None:
    """Raises `UserError` if processes see different folders; all must ask at once."""
    owner, steps = run.path / _LOCK, run.path.glob("checkpoints/step-*")
    owner = owner.read_text() if owner.exists() else None
    if not processes.all_same((owner, sorted(path.name for path in steps))):
        raise UserError(
            f"--workdir={run.path.parent}: processes see different content of "
            f"{run.path.name}; name a folder that all machines share"
        )


def _check_same(path: pathlib.Path, ours: dict, theirs: dict) -> None:
    differing = shaping_differences(ours["config"], theirs["config"])
    # Earlier versions had one size of images and did not say it.
    unsaid = {"image_size": [*IMAGE_SIZE]}
    for name in sorted(ours["data"].keys() | theirs["data"].keys()):
        pair = tuple(x["data"].get(name, unsaid.get(name)) for x in (ours, theirs))
        if pair[0] != pair[1]:
            differing[f"data {name}"] = pair
    if differing:
        fields = ", ".join(f"{k}={b!r} (now {a!r})" for k, (a, b) in differing.items())
        raise UserError(
            f"{path} belongs to a run with other settings: {fields}; choose another "
            "--run_name, or give those settings"
        )


def save_model(run: Run, params: Any, architecture: dict[str, Any]) -> None:
    """Writes the encoder and the decoder, each a checkpoint that loads alone.

    Args:
      run: the run to write to.
      params: {'encoder': ..., 'decoder': ...}.
      architecture: decoder, latent_dim, latent_activation and image_size.
    """
    for part in PARTS:
        folder = paths.inside(run.path, part)
        about = {"part": part, **architecture}
        checkpoints.save(folder, params[part], about)
