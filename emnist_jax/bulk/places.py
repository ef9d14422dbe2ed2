"""Files on this machine or, through fsspec, in a bucket: `gs://bucket/part-0.npy`.

A zarr array, a folder, counts as one file.
"""

import contextlib
import glob
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from emnist_jax.cli.errors import UserError
from emnist_jax.data import zarr_store
from emnist_jax.storage import files


def is_remote(name: str) -> bool:
    """Whether fsspec has to get at it."""
    return "://" in name


def absolute(name: str) -> str:
    """The same place by its one name that is valid in every process."""
    name = name.removeprefix("file://")
    if not is_remote(name):
        return os.path.abspath(name)
    with _remote(name, "read") as (system, path):
        return system.unstrip_protocol(path).rstrip("/")


def join(folder: str, name: str) -> str:
    """The place `name` in a folder."""
    return f"{folder.rstrip('/')}/{name}"


def find(globs: Sequence[str]) -> dict[str, int]:
    """Files and their sizes in bytes: those of each glob in the order of their names.

    Raises:
      UserError: a glob matches no file, or cannot be looked up.
    """
    found: dict[str, int] = {}
    for pattern in map(absolute, globs):
        if is_remote(pattern):
            with _remote(pattern, "read") as (system, path):
                matching = system.glob(path, detail=True)
                these = {
                    system.unstrip_protocol(name): about["size"] or system.du(name)
                    for name, about in matching.items()
                    if about["type"] == "file" or _is_array(system, name)
                }
        else:
            there = os.path.exists(pattern)  # whatever characters it has
            names = [pattern] if there else glob.glob(pattern, recursive=True)
            names = [n for n in names if os.path.isfile(n) or zarr_store.is_store(n)]
            these = {name: _size(pathlib.Path(name)) for name in names}
        if not these:
            folder = os.path.isdir(pattern)
            reason = "is a folder; name its files" if folder else "no file is there"
            raise UserError(f"{pattern}: {reason}, by a glob like 'shards/*.npy'")
        found |= dict(sorted(these.items()))
    return found


def names(folder: str) -> set[str]:
    """What a folder holds, hidden files aside; nothing where there is none.

    Raises:
      UserError: it is a file, or cannot be read.
    """
    if is_remote(folder):
        with _remote(folder, "read") as (system, path):
            inside = system.ls(path, detail=False) if system.isdir(path) else []
    else:
        try:
            inside = os.listdir(folder)
        except FileNotFoundError:
            inside = []
        except OSError as error:
            raise UserError(f"cannot read {folder}: {error.strerror}") from error
    last = {name.rstrip("/").rpartition("/")[2] for name in inside}
    return {name for name in last if not name.startswith(".")}


def exists(name: str) -> bool:
    """Whether a file is there."""
    if not is_remote(name):
        return os.path.lexists(name)
    with _remote(name, "read") as (system, path):
        return system.exists(path)


@contextlib.contextmanager
def fetched(name: str) -> Iterator[pathlib.Path]:
    """A file as one of this machine, for as long as the block lasts."""
    if not is_remote(name):
        yield pathlib.Path(name)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f"file{pathlib.PurePath(name).suffix}"
        with _remote(name, "read") as (system, there):
            system.get(there, str(path), recursive=system.isdir(there))
        yield path


@contextlib.contextmanager
def placed(name: str, array: bool = False) -> Iterator[pathlib.Path]:
    """Yields a file to write, which appears as `name` when the block has ended.

    In a bucket that is one upload, which stores show when it is complete; of an array
    the metadata come last, without which there is none.

    Args:
      name: the final name; what is there is replaced.
      array: whether it is a zarr array, a folder.

    Raises:
      UserError: it cannot be written.
    """
    if not is_remote(name):
        marks = ("zarr.json", "c")
        with (
            files.write_folder(name, marks) if array else files.write_atomically(name)
        ) as temporary:
            yield temporary
        return
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f"file{pathlib.PurePath(name).suffix}"
        yield path
        with _remote(name, "write") as (system, there):
            if not array:
                system.put_file(str(path), there)
                return
            for old in (f"{there}/zarr.json", there):
                if system.exists(old):
                    system.rm(old, recursive=True)
            for part in sorted(parts(path), key=lambda part: part.name == "zarr.json"):
                inside = part.relative_to(path).as_posix()
                system.put_file(str(part), f"{there}/{inside}")


def remove(name: str) -> None:
    """Removes a file, or an empty folder of this machine, if it is there."""
    if is_remote(name):
        with _remote(name, "write") as (system, path):
            if system.isfile(path):
                system.rm_file(path)
        return
    with contextlib.suppress(OSError):
        os.rmdir(name) if os.path.isdir(name) else os.remove(name)


def read_json(name: str) -> dict:
    """A JSON object; raises `UserError` as `files.read_json`."""
    with fetched(name) as path:
        try:
            return files.read_json(path)
        except UserError as error:
            raise UserError(str(error).replace(str(path), name)) from error


def write_json(name: str, value: Any) -> None:
    """Writes `value` as JSON."""
    with placed(name) as path:
        path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")


def parts(path: pathlib.Path) -> list[pathlib.Path]:
    """A file of this machine, or the files of an array in the order of their names.

    Raises:
      UserError: one of an array is a link, which leads out of it.
    """
    if not path.is_dir():
        return [path]
    found = sorted(path.rglob("*"), key=str)
    if links := [part for part in found if part.is_symlink()]:
        raise UserError(f"{links[0]}: is a link; copy the array to one without")
    return [part for part in found if not part.is_dir()]


def digest(path: pathlib.Path) -> dict[str, Any]:
    """Size in bytes and SHA-256 of a file of this machine.

    That of an array is of the lines that `sha256sum` prints of its files.

    Raises:
      UserError: it cannot be read.
    """
    if path.is_dir():
        found = {str(part.relative_to(path)): digest(part) for part in parts(path)}
        lines = "".join(f"{one['sha256']}  {name}\n" for name, one in found.items())
        size = sum(one["bytes"] for one in found.values())
        return {"bytes": size, "sha256": hashlib.sha256(lines.encode()).hexdigest()}
    try:
        with files.open_regular(path) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            return {"bytes": file.tell(), "sha256": found}
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def _size(path: pathlib.Path) -> int:
    return sum(p.stat().st_size for p in [path, *path.rglob("*")] if p.is_file())


def _is_array(system: Any, name: str) -> bool:
    return any(system.exists(f"{name}/{mark}") for mark in zarr_store.MARKS)


@contextlib.contextmanager
def _remote(name: str, verb: str) -> Iterator[tuple[Any, str]]:
    """The file system of a place, and its path there."""
    try:
        import fsspec
    except ImportError as error:
        raise UserError(
            f"{name}: needs fsspec: pip install 'emnist-jax[ray]'"
        ) from error
    try:
        yield fsspec.core.url_to_fs(name, use_listings_cache=False)  # others write
    except UserError:
        raise
    except Exception as error:  # each file system has errors of its own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"cannot {verb} {name}: {reason}") from error
