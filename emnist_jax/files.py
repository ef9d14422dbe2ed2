"""Files that appear under their final name only when they are complete."""

import contextlib
import errno
import fcntl
import glob
import json
import os
import pathlib
import shutil
import stat
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from emnist_jax.errors import UserError


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path` and renames it there at the end.

    The temporary file or folder is removed if the block raises, and by the next
    call for the same `path` if this process is killed. Content is flushed to disk
    before the rename, so a crash leaves the old file or the new one, never a part.

    Args:
      path: the final name; an existing file or folder there is replaced.

    Yields:
      The temporary name, in the same folder, where the block writes a file or
      makes a folder.

    Raises:
      UserError: the folder of `path` cannot be written, the disk is full, or `path`
        is a pipe or a device.
    """
    path = pathlib.Path(path)
    if os.path.islink(path):  # what it points to is replaced, and the link stays
        path = pathlib.Path(os.path.realpath(path))
    if os.path.lexists(path) and not (path.is_file() or path.is_dir()):
        raise UserError(f"cannot write {path}: is neither a file nor a folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, path.name)
        holder = pathlib.Path(
            tempfile.mkdtemp(prefix=f".{path.name}.tmp-", dir=path.parent)
        )
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    temporary = holder / path.name
    with _locked(holder):
        try:
            yield temporary
            _sync(temporary)
            if path.is_dir() and not path.is_symlink():
                path.rename(_replaced(temporary))  # no one step replaces a folder
            temporary.replace(path)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"cannot write {path}: {reason}") from error
        finally:
            _clear(holder)


def remove_leftovers(folder: pathlib.Path, name: str | None = None) -> None:
    """Removes what killed processes left of `write_atomically` in a folder.

    What a living process is writing stays.

    Args:
      folder: where to look; with no `name` in its subfolders too.
      name: only leftovers of this file or folder.
    """
    pattern = "**/.*" if name is None else f".{glob.escape(name)}"
    for holder in list(folder.glob(f"{pattern}.tmp-????????")):
        with _locked(holder) as alone:
            if alone:
                _clear(holder)


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """Opens a file for reading.

    Raises:
      OSError: it cannot be read, or is a pipe or a device, which may never end.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NONBLOCK)  # a pipe would wait for its writer

    file = open(path, "rb", opener=opener)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return file


def write_json(path: str | os.PathLike, value: object) -> None:
    """Writes `value` as indented JSON; NaN and infinities are errors."""
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike) -> dict:
    """Reads a JSON object.

    Raises:
      UserError: the file is missing, unreadable or not a JSON object.
    """
    try:
        with open_regular(path) as file:
            value = json.load(file)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds {type(value).__name__}, not a JSON object")
    return value


def _clear(holder: pathlib.Path) -> None:
    """Removes a temporary folder, and ends a replacement that it cut in two."""
    temporary = holder / holder.name[1:].rpartition(".tmp-")[0]
    final = holder.parent / temporary.name
    if _replaced(temporary).exists() and not final.exists():
        temporary.rename(final)
    shutil.rmtree(holder, ignore_errors=True)


def _replaced(temporary: pathlib.Path) -> pathlib.Path:
    return temporary.with_name(f"{temporary.name}.replaced")


@contextlib.contextmanager
def _locked(holder: pathlib.Path) -> Iterator[bool]:
    """Locks a folder for this block or this process' life; yields whether it could."""
    descriptor, alone = None, False
    # It fails if another process holds it, and on network drives without locks.
    with contextlib.suppress(OSError):
        descriptor = os.open(holder, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        alone = True
    try:
        yield alone
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _sync(path: pathlib.Path) -> None:
    names = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    for name in names:
        with open(name, "rb") as file:
            os.fsync(file.fileno())
