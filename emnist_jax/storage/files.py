"""Files that appear under their final name only when they are complete."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from emnist_jax.cli.errors import UserError
from emnist_jax.storage import paths

LARGEST_JSON = 2**26  # bytes; the largest of ours have some 100,000


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path on the disk of `path` and renames it there at the end.

    The temporary file is removed if the block raises, and by the next call for the
    same `path` if this process is killed. Content is flushed to disk before the
    rename, so a crash leaves the old file or the new one, never a part.

    Args:
      path: the final name; a file there is replaced, its permissions stay. A link is
        replaced too and never followed: `check_output` follows those of the user.

    Yields:
      The temporary name, of the same last part, where the block writes a file.

    Raises:
      UserError: the folder of `path` cannot be written, the disk is full, or `path`
        is a folder, a pipe or a device.
    """
    path = pathlib.Path(path)
    with _replacement(path, lambda: _expect_file(path)) as temporary:
        yield temporary


@contextlib.contextmanager
def write_folder(
    path: str | os.PathLike, marks: Sequence[str] = ()
) -> Iterator[pathlib.Path]:
    """`write_atomically` for a folder, which the block makes.

    Args:
      path: the final name; an empty folder there is replaced.
      marks: names by which a folder of ours is known. One with content is replaced
        if it holds all of them, or all but one: damage may have taken that.

    Raises:
      UserError: as there, or `path` is anything else.
    """
    path = pathlib.Path(path)
    with _replacement(path, lambda: check_folder(path, marks)) as temporary:
        yield temporary


def check_folder(path: pathlib.Path, marks: Sequence[str] = ()) -> None:
    """Raises `UserError` where `write_folder` would not write."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise UserError(f"cannot write {path}: is not a folder; remove it")
    if path.exists() and any(path.iterdir()) and not is_ours(path, marks):
        raise UserError(
            f"cannot write {path}: is a folder with something else in it; move it away"
        )


def remove_leftovers(folder: pathlib.Path, name: str | None = None) -> None:
    """Removes what killed processes left of `write_atomically` in a folder.

    What a living process is writing stays, and whatever is not surely ours.

    Args:
      folder: where to look; with no `name` in its subfolders too.
      name: only leftovers of this file or folder.
    """
    pattern = f"{_holder_prefix(name)}????????"
    for holder in list(folder.glob(pattern if name else f"**/{pattern}")):
        if _is_holder(holder):
            with _locked(holder) as alone:
                if alone:
                    _clear(holder)


def is_ours(path: pathlib.Path, marks: Sequence[str]) -> bool:
    """Whether a folder, no link, holds all or all but one of the names `marks`."""
    found = sum((path / mark).exists() for mark in marks)
    return found >= max(1, len(marks) - 1) and not path.is_symlink()


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
      UserError: the file is missing, unreadable, over `LARGEST_JSON` bytes or not a
        JSON object.
    """
    try:
        with open_regular(path) as file:
            if (size := os.fstat(file.fileno()).st_size) > LARGEST_JSON:
                raise ValueError(f"{size} bytes are more than {LARGEST_JSON}")
            value = json.load(file)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds {type(value).__name__}, not a JSON object")
    return value


@contextlib.contextmanager
def _replacement(
    path: pathlib.Path, check: Callable[[], None]
) -> Iterator[pathlib.Path]:
    """Yields a name in a holder beside `path`; `check` says if `path` may be replaced.

    The holder is a hidden folder, locked while its process lives: in `new` lies what
    is written, in `old` a folder that is being replaced.
    """
    try:
        check()
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, path.name)
        prefix = _holder_prefix(path.name)
        holder = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    temporary = holder / "new" / path.name
    with _locked(holder):
        try:
            temporary.parent.mkdir()
            yield temporary
            _sync(temporary)
            check()  # it may have come since
            if temporary.is_dir():
                _move_away(path, holder)
            elif path.is_file() and not path.is_symlink():
                with contextlib.suppress(OSError):  # file systems without modes
                    temporary.chmod(stat.S_IMODE(path.stat().st_mode) & 0o777)
            temporary.replace(path)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"cannot write {path}: {reason}") from error
        finally:
            _clear(holder)


def _holder_prefix(name: str | None) -> str:
    """How the holders of a file begin; of all for None. Short: names have a limit."""
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:8] if name else "????????"
    return f".emnist_jax-{digest}-"


def _is_holder(folder: pathlib.Path) -> bool:
    """Whether a folder of a holder's name holds nothing but what a holder does."""
    try:
        inside = list(folder.iterdir())
        return not folder.is_symlink() and all(
            path.name in ("new", "old") and path.is_dir() and not path.is_symlink()
            for path in inside
        )
    except OSError:  # a file, or another user's
        return False


def _move_away(path: pathlib.Path, holder: pathlib.Path) -> None:
    """Puts a folder that is to be replaced aside: no one step replaces it."""
    if path.is_dir() and any(path.iterdir()):
        (holder / "old").mkdir()
        path.rename(holder / "old" / path.name)


def _clear(holder: pathlib.Path) -> None:
    """Removes a holder, and ends a replacement that was cut in two."""
    for aside in holder.glob("old/*"):
        final = holder.parent / aside.name
        if not os.path.lexists(final):
            new = holder / "new" / aside.name
            (new if new.exists() else aside).rename(final)
    shutil.rmtree(holder, ignore_errors=True)


def _expect_file(path: pathlib.Path) -> None:
    if os.path.isdir(path):
        raise UserError(f"cannot write {path}: is a folder; name a file")
    if not path.is_symlink() and paths.is_special(path):
        raise UserError(f"cannot write {path}: is neither a file nor a folder")


@contextlib.contextmanager
def _locked(holder: pathlib.Path) -> Iterator[bool]:
    """Locks a holder for this block or this process' life; yields whether it could."""
    descriptor, alone = None, False
    # It fails if another process holds it, and on network drives without locks.
    with contextlib.suppress(OSError):
        descriptor = os.open(holder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
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
