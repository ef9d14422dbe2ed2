"""Files that appear under their final name only when they are complete."""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from emnist_jax.errors import UserError


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path` and renames it there at the end.

    The temporary file or folder is removed if the block raises. Content is
    flushed to disk before the rename, so a crash leaves the old file or the
    new one, never a part.

    Args:
      path: the final name; an existing file or folder there is replaced.

    Yields:
      The temporary name, in the same folder, where the block writes a file or
      makes a folder.

    Raises:
      UserError: the folder of `path` cannot be written, or the disk is full.
    """
    path = pathlib.Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = pathlib.Path(
            tempfile.mkdtemp(prefix=f".{path.name}.tmp-", dir=path.parent)
        )
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    temporary = holder / path.name
    try:
        yield temporary
        _sync(temporary)
        if path.is_dir() and not path.is_symlink():
            path.rename(holder / "replaced")  # a folder cannot be replaced in one step
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(holder, ignore_errors=True)


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
        value = json.loads(pathlib.Path(path).read_text())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds {type(value).__name__}, not a JSON object")
    return value


def _sync(path: pathlib.Path) -> None:
    names = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    for name in names:
        with open(name, "rb") as file:
            os.fsync(file.fileno())
