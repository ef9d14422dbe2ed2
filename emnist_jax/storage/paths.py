"""Where to write: names that users give, run folders of others, caches of our own."""

import contextlib
import errno
import os
import pathlib
import stat
from collections.abc import Callable

from emnist_jax.cli.errors import UserError


def check_output(
    path: str | os.PathLike,
    *inputs: str | os.PathLike | None,
    flag: str = "cannot write ",
) -> pathlib.Path:
    """Checks the name of a file to write before there is any work to lose.

    Args:
      path: as the user wrote it.
      *inputs: what is read; what is no file or None does not count.
      flag: what stands in front of `path` in errors, '--out=' for example.

    Returns:
      The file to write: where links lead.

    Raises:
      UserError: it is a folder, a device or one of the inputs, also by another name,
        or its folder cannot be written.
    """
    text, real = os.fspath(path), pathlib.Path(os.path.realpath(path))
    folder = next((p for p in real.parents if os.path.exists(p)), real)
    # What they lead to is known to a process, and may be a file opened to append to.
    open_file = os.path.abspath(text).startswith(("/dev/fd/", "/dev/std", "/proc/"))
    if text == "-":
        reason = "standard output cannot be written; name a file"
    elif os.path.isdir(real) or text.endswith(os.sep):
        reason = "is a folder; name a file"
    elif os.path.lexists(text) and (open_file or is_special(real)):
        reason = "is neither a file nor a folder"
    elif any(_is_same(real, one) for one in inputs if one is not None):
        reason = "is the input file itself; choose another name"
    elif not folder.is_dir():
        reason = f"{folder} is not a folder"
    elif not os.access(folder, os.W_OK | os.X_OK):
        reason = f"the folder {folder} cannot be written"
    elif len(os.fsencode(real.name)) > os.pathconf(folder, "PC_NAME_MAX"):
        reason = os.strerror(errno.ENAMETOOLONG)
    else:
        return real
    raise UserError(f"{flag}{text}: {reason}")


def inside(folder: str | os.PathLike, name: str) -> pathlib.Path:
    """The path of what a run folder holds under `name`, for writing.

    A run folder may come from somebody else, and a link in it lead to any file.

    Raises:
      UserError: it is a link, or a folder that holds one.
    """
    path = pathlib.Path(folder) / name
    found = [path] if path.is_symlink() or not path.is_dir() else path.iterdir()
    for link in found:
        if link.is_symlink():
            raise UserError(
                f"{link} is a link, and nothing is written where links in a run "
                "folder lead; remove it"
            )
    return path


def no_link(name: str | os.PathLike, flags: int) -> int:
    """An opener for `open`: OSError where the name is a link."""
    return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def private_folder(
    base: str | os.PathLike, *names: str, warn: Callable[[str], None]
) -> pathlib.Path | None:
    """The folder base/name/..., made with mode 0700, for what we trust when we read it.

    Args:
      base: where it goes; made if missing.
      *names: folders of ours, each in the one before.
      warn: gets a line if there is such a folder that others can write.

    Returns:
      The folder; None if it cannot be made, is somebody else's or can be written by
      others.
    """
    folder = pathlib.Path(base)
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            folder = folder / name
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            about = folder.lstat()
            if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid():
                warn(f"{folder} is not a folder of yours: it is not used")
                return None
            if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                warn(
                    f"{folder} can be written by others: it is not used; delete it, or "
                    "if you trust all that is in it: chmod -R go-w"
                )
                return None
        return folder
    return None


def cache_home() -> pathlib.Path | None:
    """The user's folder for caches; None for a user without a home folder."""
    chosen, default = os.environ.get("XDG_CACHE_HOME", ""), "~/.cache"
    for folder in (chosen, os.path.expanduser(default)):
        if os.path.isabs(folder):  # the standard has others ignored
            return pathlib.Path(folder)
    return None


def is_special(path: str | os.PathLike) -> bool:
    """Whether a pipe, a device or a link that leads nowhere is there."""
    return os.path.lexists(path) and not (os.path.isfile(path) or os.path.isdir(path))


def _is_same(path: pathlib.Path, other: str | os.PathLike) -> bool:
    both = os.path.exists(path) and os.path.exists(other)
    return both and os.path.samefile(path, other)
