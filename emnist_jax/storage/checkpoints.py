"""Checkpoints: trees of NumPy arrays saved by Orbax, sealed with a manifest.

Each lies in a folder of its own that appears under its name only when complete.
The manifest holds the SHA-256 of every other file, metadata included, so a truncated
file, a flipped bit or a missing file is noticed before a value is used.
"""

import errno
import hashlib
import json
import math
import os
import pathlib
import re
import shutil
import stat
import tempfile
import textwrap
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from emnist_jax.cli import backend
from emnist_jax.cli.errors import UserError
from emnist_jax.cli.interrupts import uninterrupted
from emnist_jax.storage import files, paths

_MANIFEST, _METADATA = "manifest.json", "metadata.json"
_MARKS = (_MANIFEST, _METADATA, "_METADATA")  # the last one is Orbax'
LARGEST = 2**32  # bytes of a checkpoint; no setting makes half of it
_LOST = (errno.ENOENT, errno.ENOTDIR, errno.EIO)  # damage, not permissions or limits


class DamagedCheckpoint(UserError):
    """A checkpoint is missing, incomplete or altered: another one may do."""


def save(path: str | os.PathLike, tree: Any, metadata: dict) -> None:
    """Saves a tree of arrays; process-local, so call it on one process.

    Args:
      path: the checkpoint's folder; an existing checkpoint is replaced.
      tree: dicts of arrays; they load on any number and kind of devices.
      metadata: JSON-able facts kept beside the arrays.

    Raises:
      UserError: the folder cannot be written or holds something else, or the disk
        is full.
    """
    tree = jax.tree.map(np.asarray, jax.device_get(tree))
    with uninterrupted(), files.write_folder(path, _MARKS) as folder:
        _reserve(folder.parent, sum(x.nbytes for x in jax.tree.leaves(tree)))
        try:
            with _checkpointer() as checkpointer:
                checkpointer.save(folder.absolute(), args=ocp.args.PyTreeSave(tree))
        except ValueError as error:  # how tensorstore reports an OSError
            raise OSError(str(error).splitlines()[0]) from error
        (folder / _METADATA).write_text(json.dumps(metadata, indent=1) + "\n")
        (folder / _MANIFEST).write_text(json.dumps(_digests(folder), indent=1) + "\n")


def load(path: str | os.PathLike) -> tuple[Any, dict]:
    """Loads a checkpoint after checking every byte of it.

    Args:
      path: its folder.

    Returns:
      Its tree, of dicts and NumPy arrays, and its metadata.

    Raises:
      DamagedCheckpoint: it is missing, incomplete or altered; says which file.
      UserError: it cannot be read, as by its permissions, or is no tree of arrays.
    """
    metadata = verify(path)
    backend.start()  # where JAX cannot, Orbax would say so of the checkpoint
    try:
        with uninterrupted(), _checkpointer() as checkpointer:
            folder = pathlib.Path(path).absolute()
            _expect_ours(folder, checkpointer)
            tree = checkpointer.restore(folder, args=ocp.args.PyTreeRestore())
    except Exception as error:  # whatever Orbax does on what is not its own
        reason = textwrap.shorten(str(error) or repr(error), 200)
        raise UserError(
            f"checkpoint {path} is as its manifest says, but Orbax cannot read it: "
            f"{reason}; was it saved by another version?"
        ) from error
    return tree, metadata


def verify(path: str | os.PathLike) -> dict:
    """Checks a checkpoint's files against its manifest and returns its metadata.

    Raises:
      DamagedCheckpoint, UserError: as `load`.
    """
    path = pathlib.Path(path)
    if not os.path.lexists(path):
        raise DamagedCheckpoint(f"checkpoint {path} is missing: No such file or folder")
    try:
        listed, found = files.read_json(path / _MANIFEST), _digests(path)
        for name in sorted(listed.keys() | found.keys()):
            if name not in found:
                raise UserError(f"{name} is missing")
            if name not in listed:
                raise UserError(f"{name} is not in its {_MANIFEST}")
            if listed[name] != found[name]:
                raise UserError(f"{name} is altered")
        return files.read_json(path / _METADATA)
    except (UserError, OSError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if isinstance(cause, OSError) and cause.errno not in _LOST:
            reason = f"{cause.filename or path}: {cause.strerror or cause}"
            raise UserError(f"checkpoint {path} cannot be read: {reason}") from error
        raise DamagedCheckpoint(f"checkpoint {path} is damaged: {error}") from error


def restore_like(template: Any, tree: Any, path: str | os.PathLike) -> Any:
    """Puts loaded arrays into the structure of `template`.

    Args:
      template: the tree that the program expects.
      tree: from `load`.
      path: named in errors.

    Raises:
      UserError: a leaf is missing, superfluous or of another shape.
    """
    expected = {jax.tree_util.keystr(k): v for k, v in _leaves(template)}
    found = {jax.tree_util.keystr(k): v for k, v in _leaves(tree)}
    for name in sorted(expected.keys() ^ found.keys()):
        state = "lacks" if name in expected else "has an unknown"
        raise UserError(f"checkpoint {path} {state} parameter {name}")
    for name, leaf in expected.items():
        if np.shape(found[name]) != np.shape(leaf):
            raise UserError(
                f"checkpoint {path}: {name} has shape {np.shape(found[name])}, "
                f"expected {np.shape(leaf)}"
            )
    order = [found[jax.tree_util.keystr(k)] for k, _ in _leaves(template)]
    return jax.tree.unflatten(jax.tree.structure(template), order)


class StepCheckpoints:
    """The checkpoints of a training run: the latest two and the best."""

    def __init__(self, folder: pathlib.Path, warn: Callable[[str], None]):
        """Looks after `folder`; damaged checkpoints are reported to `warn`."""
        self.folder = folder
        self.warn = warn
        self._best_before: int | None = None

    def path(self, step: int) -> pathlib.Path:
        """Folder of the checkpoint of `step`."""
        return self.folder / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, in order."""
        return sorted(
            int(path.name.removeprefix("step-"))
            for path in self.folder.glob("step-*")
            if re.fullmatch("step-[0-9]{8,18}", path.name)
        )

    def save(self, step: int, tree: Any, metadata: dict, best: int | None) -> None:
        """Saves the state after `step` and drops what is neither recent nor best."""
        paths.inside(self.folder.parent, self.folder.name)
        save(self.path(step), tree, metadata)
        # Later ones are damaged, or training would not have gone back behind them. And
        # if this one gets damaged, the one before it still needs its own best.
        recent = [other for other in self.steps() if other <= step][-2:]
        for other in set(self.steps()) - {*recent, best, self._best_before}:
            if files.is_ours(self.path(other), _MARKS):
                shutil.rmtree(self.path(other), ignore_errors=True)
        self._best_before = best

    def is_good(self, step: int) -> bool:
        """Whether the checkpoint of `step` is intact; warns if it is not."""
        try:
            verify(self.path(step))
        except DamagedCheckpoint as error:
            self.warn(str(error))
            return False
        return True

    def latest(self) -> tuple[Any, dict] | None:
        """The latest intact checkpoint, or None if there has never been one.

        Raises:
          DamagedCheckpoint: there are checkpoints, but none is intact.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return load(self.path(step))
            except DamagedCheckpoint as error:
                self.warn(str(error))
        if steps:
            raise DamagedCheckpoint(
                f"no intact checkpoint in {self.folder}; delete that folder to start "
                "again from the beginning"
            )
        return None


def _leaves(tree: Any) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_flatten_with_path(tree)[0]


def _checkpointer() -> ocp.Checkpointer:
    # Only this process takes part: the others need not come to the same place.
    here = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"p{here}"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=options)
    return ocp.Checkpointer(handler, multiprocessing_options=options)


def _expect_ours(folder: pathlib.Path, checkpointer: ocp.Checkpointer) -> None:
    """Raises ValueError if what Orbax would read leads elsewhere or asks for too much.

    Only an OCDBT database takes names for keys; else they would be paths. Memory is
    taken by the chunk, and ours are whole arrays.
    """
    if files.read_json(folder / "_METADATA").get("use_ocdbt") is not True:
        raise ValueError("its arrays are not in one database")
    described = checkpointer.metadata(folder).item_metadata
    if described is None:
        raise ValueError("its arrays are not described")
    size = 0
    for x in jax.tree.leaves(described.tree, is_leaf=lambda x: hasattr(x, "shape")):
        size += math.prod(x.shape) * np.dtype(x.dtype).itemsize
        chunk = x.storage.chunk_shape if x.storage else x.shape
        if tuple(chunk) != tuple(x.shape):
            raise ValueError(f"an array of shape {x.shape} is in chunks of {chunk}")
    if size > LARGEST:
        raise ValueError(f"it claims arrays of {size} bytes, more than {LARGEST}")


def _reserve(folder: pathlib.Path, size: int) -> None:
    """Raises OSError if the disk has no room: Orbax' threads would print pages."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(size + 2**20))


def _digests(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file but the manifest; errors name what is none of ours."""
    found, left = {}, LARGEST
    for parent, folders, names in os.walk(folder, onerror=_raise):
        for path in (pathlib.Path(parent, name) for name in folders + names):
            about, name = path.lstat(), str(path.relative_to(folder))
            if stat.S_ISDIR(about.st_mode) or path.name == _MANIFEST:
                continue
            left -= about.st_size
            if not stat.S_ISREG(about.st_mode) or left < 0:
                raise UserError(f"{name} is no regular file, or far too large")
            with files.open_regular(path) as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _raise(error: OSError) -> None:
    raise error
